"""Answers on disk, so that nothing is paid twice: a SQLite file that any number of processes and threads share.

It also counts what was ever sent to an address, which is what ceilings are held against, and spaces requests out.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from craft_jax import folders
from craft_jax.blackbox.billing import Bill, CeilingReached, Ceilings
from craft_jax.errors import UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS owners (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS lists (id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL, texts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS asked (owner INTEGER, list INTEGER, PRIMARY KEY (owner, list)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
  owner INTEGER, subject BLOB, list INTEGER, value BLOB NOT NULL, PRIMARY KEY (owner, subject, list)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recent (
  id INTEGER PRIMARY KEY AUTOINCREMENT, owner INTEGER, subject BLOB, value BLOB NOT NULL, UNIQUE (owner, subject)
);
CREATE TABLE IF NOT EXISTS bills (
  address TEXT PRIMARY KEY, since TEXT NOT NULL, requests INTEGER, tokens INTEGER, next REAL NOT NULL
) WITHOUT ROWID;
"""
_BUSY = 60.0  # seconds to wait for another process that writes
_AT_ONCE = 500  # questions in one statement
_RECENT = 2**30  # bytes of answers that only a run that goes on will want


class Store:
    """The file of answers.

    Args:
      path: of the file; its folder is made where there is none. None is the file in the user's cache folder.

    Raises:
      UserError: where it cannot be opened, here and in every method.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or folders.cache() / "answers.sqlite"
        self._lock = threading.Lock()
        with self._named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing by it
            self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def owner(self, name: str) -> int:
        """The number of whoever answers, for the methods below; `name` tells all that its answers depend on."""
        with self._writing() as write:
            write.execute("INSERT OR IGNORE INTO owners (name) VALUES (?)", (name,))
            return int(write.execute("SELECT id FROM owners WHERE name = ?", (name,)).fetchone()[0])

    def list_of(self, texts: Sequence[str]) -> int:
        """The number of a list of texts."""
        written = json.dumps(list(texts))
        digest = hashlib.sha256(written.encode()).digest()
        with self._writing() as write:
            write.execute("INSERT OR IGNORE INTO lists (digest, texts) VALUES (?, ?)", (digest, written))
            return int(write.execute("SELECT id FROM lists WHERE digest = ?", (digest,)).fetchone()[0])

    def note_asked(self, owner: int, texts: Sequence[str]) -> None:
        """Takes note that all of these texts are asked of an owner, for `wider`."""
        number = self.list_of(texts)
        with self._writing() as write:
            write.execute("INSERT OR IGNORE INTO asked VALUES (?, ?)", (owner, number))

    def wider(self, owner: int, texts: Sequence[str]) -> list[list[str]]:
        """Longer lists that an owner was asked before and that hold all of these texts, the shortest first."""
        query = "SELECT texts FROM lists JOIN asked ON lists.id = asked.list WHERE asked.owner = ?"
        with self._reading() as read:
            found = [json.loads(written) for (written,) in read.execute(query, (owner,))]
        wanted = set(texts)
        return sorted((other for other in found if len(other) > len(wanted) and wanted <= set(other)), key=len)

    def get(self, owner: int, subjects: Iterable[bytes], number: int = 0) -> dict[bytes, bytes]:
        """The answers about subjects (images, say) for the list of this number, as far as there are any."""
        wanted = list(subjects)
        found: dict[bytes, bytes] = {}
        for first in range(0, len(wanted), _AT_ONCE):
            part = wanted[first : first + _AT_ONCE]
            marks = ",".join("?" * len(part))
            query = f"SELECT subject, value FROM answers WHERE owner = ? AND list = ? AND subject IN ({marks})"
            with self._reading() as read:
                found.update(read.execute(query, (owner, number, *part)))
        return found

    def put(self, owner: int, answers: dict[bytes, bytes], number: int = 0) -> None:
        """Keeps answers by subject."""
        rows = [(owner, subject, number, value) for subject, value in answers.items()]
        with self._writing() as write:
            write.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)

    def get_recent(self, owner: int, subject: bytes) -> bytes | None:
        """A large answer, where it is still there."""
        with self._reading() as read:
            row = read.execute("SELECT value FROM recent WHERE owner = ? AND subject = ?", (owner, subject)).fetchone()
        return row[0] if row else None

    def put_recent(self, owner: int, subject: bytes, value: bytes) -> None:
        """Keeps a large answer, and drops the oldest ones where there are too many."""
        with self._writing() as write:
            write.execute(
                "INSERT OR REPLACE INTO recent (owner, subject, value) VALUES (?, ?, ?)", (owner, subject, value)
            )
            (size,) = write.execute("SELECT SUM(LENGTH(value)) FROM recent").fetchone()
            oldest = write.execute("SELECT id, LENGTH(value) FROM recent ORDER BY id").fetchall()
            while size > _RECENT and oldest:
                number, bytes_of = oldest.pop(0)
                write.execute("DELETE FROM recent WHERE id = ?", (number,))
                size -= bytes_of

    def bill(self, address: str) -> Bill:
        """What was sent to an address."""
        with self._reading() as read:
            row = read.execute("SELECT since, requests, tokens FROM bills WHERE address = ?", (address,)).fetchone()
        return Bill(*row) if row else Bill(time.strftime("%Y-%m-%d"), 0, 0)

    def book(self, address: str, tokens: int, ceilings: Ceilings, spacing: float = 0.0) -> float:
        """Books a request before it is sent.

        Args:
          address: where it goes.
          tokens: that it will take, as far as is known; `settle` mends them.
          ceilings: that it must not pass.
          spacing: seconds between two requests to this address.

        Returns:
          In how many seconds its turn is.

        Raises:
          CeilingReached: where it would pass a ceiling; nothing is booked then.
        """
        with self._writing() as write:
            now = time.time()
            write.execute("INSERT OR IGNORE INTO bills VALUES (?, ?, 0, 0, 0)", (address, time.strftime("%Y-%m-%d")))
            row = write.execute(
                "SELECT since, requests, tokens, next FROM bills WHERE address = ?", (address,)
            ).fetchone()
            _check(address, Bill(*row[:3]), tokens, ceilings)
            turn = max(now, min(row[3], now + 60 + spacing)) if spacing else now
            write.execute(
                "UPDATE bills SET requests = requests + 1, tokens = tokens + ?, next = ? WHERE address = ?",
                (tokens, turn + spacing, address),
            )
        return float(turn - now)

    def settle(self, address: str, tokens: int) -> None:
        """Adds tokens to what was booked, or takes them off."""
        with self._writing() as write:
            write.execute("UPDATE bills SET tokens = tokens + ? WHERE address = ?", (tokens, address))

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            remedy = "set api.store to a file that can be written"
            if "full" in str(error):
                remedy = "make room there, and the same command goes on from what was answered"
            elif isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                remedy = "it is damaged or of another kind: move it away, or set api.store to another file"
            raise UserError(f"{self.path}: the store of answers cannot be used ({error}); {remedy}") from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, self._named(), closing(self._connection.cursor()) as cursor:
            yield cursor

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, self._named(), closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()


def _check(address: str, before: Bill, tokens: int, ceilings: Ceilings) -> None:
    """Raises CeilingReached where one more request of `tokens` passes a ceiling."""
    after = {
        "requests": before.requests + 1,
        "tokens": before.tokens + tokens,
        "money": ceilings.price(before.requests + 1, before.tokens + tokens),
    }
    for name, reached in after.items():
        most = getattr(ceilings, name)
        if most and reached > most:
            raise CeilingReached(
                f"api.max_{name}={most:g} covers no further request to {address}: {before.requests} with "
                f"{before.tokens} tokens were sent since {before.since} ({ceilings.price(*before[1:]):.2f} at the "
                "prices set); raise it, and the same command goes on from what was answered"
            )
