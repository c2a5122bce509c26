"""CoOp's 100 class names of Caltech101 in CLIP's byte-pair tokens: 61 have one, 31 two and 8 three.

Names are parted by blanks, a name's tokens by +; a token that ends a word before the last shows it by _.
"""

_WRITTEN = (
    "face leopard motorbike accordion airplane anchor ant barrel bass beaver bino+cular bonsai brain bron+to+saurus "
    "buddha butterfly camera cannon car_+side ceiling_+fan cellphone chair chandelier cougar_+body cougar_+face "
    "crab cray+fish crocodile crocodile_+head cup dalmati+an dollar_+bill dolphin dragonfly electric_+guitar "
    "elephant emu euph+oni+um e+wer ferry flamingo flamingo_+head garfield ge+ren+uk gram+ophone grand_+piano "
    "hawks+bill headphone hedgehog helicopter ibis inline_+skate joshua_+tree kangaroo ketch lamp laptop llama "
    "lobster lotus mand+olin may+fly men+orah metr+on+ome min+aret nau+til+us octopus ok+api pagoda panda pigeon "
    "pizza plat+y+pus pyramid revolver rhino rooster saxophone scho+oner scissors scorpion sea_+horse snoopy "
    "soccer_+ball stap+ler starfish ste+go+saurus stop_+sign strawberry sunflower tick tril+ob+ite umbrella watch "
    "water_+lilly wheelchair wild_+cat windsor_+chair wrench yin_+yang "
)

NAMES: tuple[tuple[str, ...], ...] = tuple(tuple(name.split("+")) for name in _WRITTEN.split())
"""The tokens of each name."""
