"""From files to `ClipParts`: one loader a layout."""
