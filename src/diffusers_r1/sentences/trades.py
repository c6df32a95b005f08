"""What people of ten trades ask for, in their own words: edits that the general wordings do not reach.

An errand is one edit: its form (a key of `FORMS`), the subject and the goal of the true edit, and the ways to ask for it.
Names in braces are drawn from `BLANKS`, the same word in the truth and in the wording.
"""

from __future__ import annotations

from . import things
from .words import read_lists


BLANKS: dict[str, tuple[str, ...]] = {
    "color": things.COLORS,
    "stuff": things.MATERIALS,
    "style": things.STYLES,
    "scene": things.SCENERY,
    "plain": ("pure white", "plain white", "light grey", "black", "transparent", "pale blue", "beige", "dark grey"),
    "who": (
        "guy", "man", "woman", "lady", "kid", "girl", "boy", "dude", "stranger", "tourist", "photographer", "waiter",
        "couple", "people", "crowd", "cyclist", "photobomber", "ex", "security guard", "reporter", "toddler", "jogger",
    ),
    "where": (
        "behind us", "on the left", "on the right", "in the background", "in the back", "at the edge", "next to me",
        "behind her", "behind him", "in the far left corner", "on the far right", "in the doorway", "between them",
        "in the middle", "in front", "by the window", "on the bench", "at the very top", "over there on the wall",
    ),
    "kin": (
        "dad", "mum", "mom", "grandma", "grandpa", "my sister", "my brother", "the bride", "the groom", "my son",
        "my daughter", "uncle ray", "my wife", "my husband", "the baby", "my best friend", "aunt may", "the teacher",
    ),
    "being": ("dog", "cat", "horse", "puppy", "kitten", "parrot", "goat", "cow", "duck", "rabbit", "pony", "hen"),
    "side": ("left", "right", "top", "bottom", "upper left", "upper right", "lower left", "lower right"),
    "flaw": (
        "pimple", "scar", "stain", "spot", "shadow", "glare", "reflection", "stray hair", "wrinkle", "smudge", "scratch",
        "crease", "speck of dust", "bruise", "sticker", "thread", "logo", "watermark", "fingerprint", "lens flare",
    ),
    "flaws": (
        "pimples", "wrinkles", "stains", "spots", "scratches", "dust specks", "reflections", "stray hairs", "cables",
        "power lines", "water marks", "cracks", "creases", "crumbs", "fingerprints", "shadows", "hot spots", "blemishes",
    ),
    "face": ("forehead", "chin", "nose", "cheek", "left cheek", "right cheek", "neck", "upper lip", "face", "arm"),
    "worn": (
        "coat", "dress", "shirt", "tie", "hat", "jacket", "jumper", "scarf", "blouse", "hoodie", "suit", "skirt", "cap",
        "shoes", "trousers", "jeans", "gloves", "socks", "vest", "uniform", "apron", "t-shirt", "gown", "bow tie",
    ),
    "accessory": (
        "sunglasses", "glasses", "a top hat", "a crown", "a moustache", "a beard", "a bow tie", "a gold chain", "a cape",
        "a wizard hat", "a santa hat", "earrings", "a scarf", "a cowboy hat", "a necktie", "a clown nose", "a tiara",
        "a leather jacket", "a monocle", "an eye patch", "headphones", "a flower crown", "a watch", "a name tag",
    ),
    "room": (
        "walls", "ceiling", "floor", "cabinets", "door", "doors", "window frames", "curtains", "skirting boards", "tiles",
        "sofa", "armchair", "rug", "headboard", "wardrobe", "shelves", "worktop", "backsplash", "fireplace", "stairs",
        "back wall", "dining chairs", "coffee table", "bed frame", "radiator", "beams", "lampshade", "kitchen island",
    ),
    "furnishing": (
        "a floor lamp", "a round mirror", "a tall plant", "a bookcase", "a sideboard", "a rug", "two armchairs", "a desk",
        "a bench", "a chandelier", "a picture", "three framed prints", "a fireplace", "a daybed", "a bar stool", "blinds",
        "a big fern", "a coat rack", "a knitted throw", "a side table", "a pendant lamp", "a vase with tulips", "a pouf",
    ),
    "clutter": (
        "toys", "boxes", "laundry", "shoes", "cables", "bins", "bicycle", "clutter", "dishes", "plastic chairs", "hose",
        "trash cans", "cleaning bucket", "family photos", "fridge magnets", "ladder", "scaffolding", "moving boxes",
        "sockets", "extension cord", "towels", "exercise bike", "cat tree", "car in the drive", "for sale sign", "mop",
    ),
    "yard": (
        "lawn", "driveway", "roof", "facade", "fence", "garage door", "pool", "front door", "hedge", "terrace", "gutter",
        "shutters", "balcony", "gate", "porch", "path", "brickwork", "deck", "flower beds", "patio",
    ),
    "goods": (
        "bottle", "box", "mug", "sneaker", "handbag", "watch", "candle", "jar", "lipstick", "backpack", "tube", "ring",
        "teapot", "cushion", "perfume bottle", "can", "headphones", "phone case", "wallet", "soap", "lamp", "notebook",
        "blender", "necklace", "boots", "tin", "carton", "toothbrush", "helmet", "knife", "chair", "lotion bottle",
    ),
    "feature": (
        "label", "cap", "handle", "lid", "strap", "buckle", "logo", "stitching", "zipper", "laces", "sole", "lettering",
        "packaging", "barcode", "front", "clasp", "dial", "ribbon", "price tag", "sleeve", "base", "nozzle", "spout",
    ),
    "dish": (
        "soup", "burger", "pizza", "salad", "cake", "pasta", "curry", "steak", "pancakes", "cocktail", "ramen", "tart",
        "sandwich", "fries", "latte", "cupcake", "taco", "bread", "ice cream", "stew", "risotto", "wings", "pie", "sauce",
    ),
    "garnish": (
        "a sprig of mint", "some parsley", "a lemon wedge", "chopped chives", "a dollop of cream", "sesame seeds",
        "grated cheese", "a basil leaf", "a drizzle of olive oil", "chili flakes", "icing sugar", "a cherry", "steam",
        "two ice cubes", "a slice of lime", "pomegranate seeds", "a pinch of salt", "croutons", "a straw", "raspberries",
    ),
    "table": (
        "fork", "napkin", "spoon", "plate", "bowl", "glass", "placemat", "tablecloth", "cutting board", "straw", "tray",
        "salt shaker", "ketchup bottle", "chopsticks", "board", "saucer", "jug", "menu", "bread basket", "candle holder",
    ),
    "sight": (
        "tower", "temple", "bridge", "castle", "mountain", "beach", "harbour", "lighthouse", "street", "square", "lake",
        "cathedral", "palace", "waterfall", "ruins", "canal", "skyline", "village", "valley", "cliff", "market", "dunes",
    ),
    "nuisance": (
        "crane", "tourists", "selfie stick", "bus", "scaffolding", "traffic cones", "bins", "cars", "power lines",
        "garbage", "umbrellas", "sign", "boats", "pigeons", "parked van", "lamp post", "fence", "finger at the edge",
        "plane", "satellite dishes", "motorbikes", "trash", "billboard", "barrier", "drone", "buoy", "road sign",
    ),
    "extra": (
        "a hot air balloon", "a rainbow", "some seagulls", "a sailing boat", "a full moon", "a few clouds", "fireworks",
        "a campfire", "a small hiker", "snow", "a flock of birds", "palm trees", "stars", "a red canoe", "a lantern",
        "a picnic blanket", "northern lights", "a street musician", "a stray cat", "wild flowers", "a rowing boat",
    ),
    "paper": (
        "signature", "stamp", "address", "heading", "page number", "coffee stain", "fold", "staple", "handwriting",
        "margin notes", "punch holes", "logo", "second paragraph", "table", "iban", "phone number", "bar code", "footer",
        "date", "thumb", "underlining", "paper clip", "ink blot", "sticky note", "signature line", "shadow of my hand",
    ),
    "damage": (
        "tear", "fold", "crease", "mould", "water damage", "scratches", "dust", "stain", "crack", "missing corner", "tape",
        "burn mark", "yellowing", "fading", "red eye", "pen marks", "glue residue", "fingerprints", "rip", "foxing",
    ),
    "old": (
        "face", "left half", "dress", "uniform", "eyes", "background", "hands", "sky", "hat", "collar", "bouquet", "car",
        "medal", "flag", "hair", "house behind them", "lace", "baby's gown", "wedding veil", "boots", "moustache",
    ),
    "funny": (
        "a potato", "a rubber duck", "a banana", "a giant shrimp", "a pineapple", "a toaster", "a disco ball", "a llama",
        "a slice of pizza", "nicolas cage", "a garden gnome", "an alien", "a hot dog", "a t-rex", "a goldfish", "a baguette",
        "a lightsaber", "a cactus", "a shark", "a pumpkin", "a muffin", "a robot", "a snowman", "a raccoon", "an avocado",
    ),
    "caption": (
        "mood", "me on monday", "send help", "this is fine", "no thoughts", "big boss", "when the wifi is back", "sale",
        "happy birthday tom", "just married", "open late", "not my problem", "best dad", "est. 1987", "50% off", "new",
        "room 12", "do not feed", "welcome home", "summer 2023", "fresh daily", "vote now", "1st prize", "lisbon",
        "keep calm", "it was like this", "out of office", "for rent", "flour & salt", "class of '99", "page 3", "no 7",
    ),
    "lettering": ("sign", "mug", "banner", "t-shirt", "label", "poster", "book cover", "billboard", "cake", "cap",
                  "whiteboard", "shop window", "name tag", "headline", "menu", "license plate", "box", "door plate"),
    "pose": (
        "smiling", "laughing", "looking at the camera", "looking to the side", "waving", "sitting", "standing straight",
        "with crossed arms", "winking", "dancing", "running", "jumping", "with closed eyes", "with open eyes", "asleep",
        "holding hands", "pointing at the sky", "facing left", "facing the camera", "with the mouth closed", "leaning back",
    ),
    "spot": (
        "in the corner", "on the wall", "next to the window", "above the sofa", "on the table", "by the door", "in the sky",
        "in the foreground", "on the left", "on the right side", "in the middle", "at the top", "under the tree", "on top",
        "in the background", "on the horizon", "behind them", "in front of the house", "on the floor", "between the two",
    ),
    "far": (
        "a bit to the left", "further right", "up a little", "to the other side", "closer to the door", "into the centre",
        "to the middle", "out of the corner", "a little lower", "nearer to the camera", "away from the edge", "to the front",
        "further back", "two steps to the right", "under the window", "onto the shelf", "higher up", "down a bit",
    ),
    "size": (
        "a bit bigger", "twice as big", "smaller", "10% larger", "half the size", "taller", "wider", "slimmer", "huge",
        "tiny", "a third smaller", "much bigger", "a touch narrower", "longer", "shorter", "20% smaller", "gigantic",
    ),
    "touch": ("a bit", "a touch", "a little", "slightly", "a tad", "way", "much", "clearly", "subtly", "somewhat"),
    "tone": ("warmer", "cooler", "sharper", "softer", "less noisy", "less yellow", "more vivid", "less saturated", "more natural", "less red", "less grainy", "crisper", "clearer", "more neutral", "less hazy", "more faded"),
    "light": ("brighter", "darker", "lighter", "less dark", "more evenly lit", "less harsh", "sunnier", "moodier"),
    "mood": (
        "golden hour light", "soft window light", "studio lighting", "candlelight", "neon light", "moonlight", "rim light",
        "late evening light", "harsh noon sun", "light from the left", "dramatic lighting", "warm lamp light", "backlight",
    ),
    "grade": ("contrast", "saturation", "sharpness", "grain", "clarity", "warmth", "haze", "noise", "vignette", "yellow"),
    "frame": ("4:5", "16:9", "1:1", "a square", "3:2", "portrait format", "landscape format", "a4", "9:16", "10 x 15 cm"),
    "kept": (
        "the people", "the car", "the two of them", "head and shoulders", "the building", "the plate", "the receipt", "the dog",
        "the upper body", "the front row", "the faces", "the product", "the middle", "the door", "the page", "the boat",
    ),
    "weather": ("blue", "clear blue", "sunset", "starry", "stormy", "cloudy", "pink", "dramatic", "bright", "golden"),
    "season": ("winter", "autumn", "spring", "a rainy day", "night", "sunset", "early morning", "a foggy day", "christmas", "the 1970s"),
}  # fmt: skip

# How the requests of all trades put it: the things stand first, the verb last or nowhere.
ASKED = read_lists("trades.txt")

# Form, subject, goal, ways to ask. A subject's article is the wording's.
ERRANDS: dict[str, tuple[tuple[str, str, str, tuple[str, ...]], ...]] = {
    "retouching": (
        ("remove", "{who} {where}", "nothing", ASKED["remove"]),
        ("remove", "{flaw} on the {face}", "nothing", ASKED["remove"]),
        ("remove", "{flaws} on the {worn}", "nothing", ASKED["remove"]),
        ("remove", "{clutter} {where}", "nothing", ASKED["remove"]),
        ("recolor", "{kin}'s {worn}", "{color}", ASKED["recolor"]),
        ("look", "whole picture", "{touch} {tone}", ASKED["photo more"]),
        ("brightness", "{kin}'s face", "{touch} {light}", ASKED["more"]),
        ("pose", "{kin}", "{pose}", ASKED["pose"]),
        ("replace", "sky", "{weather} sky", ASKED["replace"]),
        ("wear", "{accessory}", "{kin}", ASKED["wear"]),
    ),
    "product": (
        ("background", "background", "{plain}", ASKED["background"]),
        ("remove", "{flaws} on the {goods}", "nothing", ASKED["remove"]),
        ("remove", "shadow under the {goods}", "nothing", ASKED["remove"]),
        ("recolor", "{goods}", "{color}", ASKED["recolor"]),
        ("recolor", "{feature} of the {goods}", "{color}", ASKED["recolor"]),
        ("material", "{goods}", "{stuff}", ASKED["material"]),
        ("look", "{feature}", "{touch} {tone}", ASKED["more"]),
        ("resize", "{goods}", "{size}", ASKED["more"]),
        ("text", "{feature}", "{caption}", ASKED["say"]),
        ("look", "crooked {feature}", "straight", ("straighten {s}", "{s} straight please", "{s} is not level, fix that", "set {s} straight")),
        ("crop", "whole picture", "{frame}", ASKED["crop"]),
        ("remove", "{feature}", "nothing", ASKED["remove"]),
        ("light", "whole picture", "{mood}", ASKED["light"]),
    ),
    "interior": (
        ("recolor", "{room}", "{color}", ASKED["recolor"]),
        ("material", "{room}", "{stuff}", ASKED["material"]),
        ("add", "{furnishing}", "{spot}", ASKED["add"]),
        ("remove", "{clutter}", "nothing", ASKED["remove"]),
        ("replace", "{room}", "{furnishing}", ASKED["replace"]),
        ("move", "{room}", "{far}", ASKED["move"]),
        ("resize", "{room}", "{size}", ASKED["more"]),
        ("switch", "lamps", "on", ("turn on {s}", "{s} on", "switch {s} on", "let {s} be on", "have {s} lit")),
        ("state", "door", "closed", ("close {s}", "{s} closed", "shut {s}", "{s} should be shut")),
        ("state", "curtains", "open", ("open {s}", "{s} open", "draw {s} back", "{s} drawn back please")),
        ("restyle", "whole picture", "{style}", ASKED["style"]),
    ),
    "portrait": (
        ("remove", "{flaws} on the {face}", "nothing", ASKED["remove"]),
        ("look", "skin", "{touch} smoother", ("smooth the skin {touch}", "skin {touch} smoother", "soften the skin {touch}", "even out my skin {touch}")),
        ("look", "teeth", "{touch} whiter", ("whiten the teeth {touch}", "teeth {touch} whiter", "my teeth {touch} whiter please", "make the teeth {touch} whiter")),
        ("recolor", "hair", "{color}", ASKED["recolor"]),
        ("recolor", "eyes", "{color}", ASKED["recolor"]),
        ("replace", "{worn}", "{color} {worn2}", ASKED["replace"]),
        ("background", "background", "{plain}", ASKED["background"]),
        ("look", "background", "blurred", ("blur the background", "background out of focus", "soft blurry background", "throw the background out of focus", "background blurrier")),
        ("light", "whole picture", "{mood}", ASKED["light"]),
        ("pose", "woman", "{pose}", ASKED["pose"]),
        ("pose", "man", "{pose}", ASKED["pose"]),
        ("crop", "whole picture", "{kept}", ASKED["crop"]),
        ("wear", "{accessory}", "her", ASKED["wear"]),
        ("resize", "nose", "{size}", ASKED["more"]),
    ),
    "real estate": (
        ("replace", "sky", "blue sky", ("blue sky please", "swap the grey sky for a blue one", "sky replaced by a blue one", "blue sky instead of the clouds", "the sky should be blue")),
        ("remove", "{clutter} {where}", "nothing", ASKED["remove"]),
        ("remove", "{nuisance} in front of the house", "nothing", ASKED["remove"]),
        ("recolor", "{yard}", "{color}", ASKED["recolor"]),
        ("material", "{yard}", "{stuff}", ASKED["material"]),
        ("look", "verticals", "straight", ("straighten {s}", "correct {s}", "{s} straight", "{s} are leaning, correct that")),
        ("brightness", "{room}", "{touch} {light}", ASKED["more"]),
        ("add", "{furnishing}", "{spot}", ASKED["add"]),
        ("switch", "lights", "on", ("turn {s} on", "{s} on in all rooms", "switch on {s}", "all {s} on")),
        ("restyle", "whole picture", "{season}", ("make it {g}", "as if it was {g}", "turn the scene into {g}", "it should look like {g}")),
        ("remove", "{flaws} on the {yard}", "nothing", ASKED["remove"]),
    ),
    "food": (
        ("add", "{garnish}", "on the {dish}", ASKED["add"]),
        ("add", "{garnish}", "on top", ASKED["add"]),
        ("remove", "{table}", "nothing", ASKED["remove"]),
        ("remove", "{flaws} on the {table}", "nothing", ASKED["remove"]),
        ("replace", "{table}", "{color} {table2}", ASKED["replace"]),
        ("recolor", "{table}", "{color}", ASKED["recolor"]),
        ("material", "{table}", "{stuff}", ASKED["material"]),
        ("look", "{dish}", "{touch} {tone}", ASKED["more"]),
        ("resize", "{dish}", "{size}", ASKED["more"]),
        ("move", "{table}", "{far}", ASKED["move"]),
        ("light", "whole picture", "{mood}", ASKED["light"]),
        ("crop", "whole picture", "{frame}", ASKED["crop"]),
        ("replace", "{dish}", "{dish2}", ASKED["replace"]),
    ),
    "meme": (
        ("replace", "{kin}'s face", "{funny}", ASKED["replace"]),
        ("replace", "{worn}", "{funny}", ASKED["replace"]),
        ("add", "{funny}", "{spot}", ASKED["add"]),
        ("wear", "{accessory}", "the {being}", ASKED["wear"]),
        ("caption", "top of the picture", "{caption}", ASKED["caption"]),
        ("caption", "bottom of the picture", "{caption}", ASKED["caption"]),
        ("text", "{lettering}", "{caption}", ASKED["say"]),
        ("resize", "{being}", "{size}", ASKED["more"]),
        ("restyle", "whole picture", "{style}", ASKED["style"]),
        ("background", "background", "{scene}", ASKED["background"]),
        ("pose", "{being}", "{pose}", ASKED["pose"]),
        ("recolor", "{being}", "{color}", ASKED["recolor"]),
        ("look", "{who}", "blurred", ("blur {s}", "{s} blurred", "pixelate {s}", "blur {s} out")),
    ),
    "document": (
        ("remove", "{paper}", "nothing", ASKED["remove"]),
        ("remove", "{flaws} on the paper", "nothing", ASKED["remove"]),
        ("look", "page", "straight", ("straighten {s}", "deskew {s}", "{s} is crooked, straighten it", "{s} straight please")),
        ("recolor", "{paper}", "{color}", ASKED["recolor"]),
        ("text", "{paper}", "{caption}", ASKED["say"]),
        ("look", "text", "{touch} {tone}", ASKED["more"]),
        ("brightness", "text", "darker", ("make {s} darker", "{s} darker", "{s} is faded, darken it", "darken {s}")),
        ("crop", "whole picture", "{kept}", ASKED["crop"]),
        ("move", "{paper}", "{far}", ASKED["move"]),
        ("restyle", "whole picture", "black and white", ("black and white", "b/w please", "b&w", "make it pure black and white", "convert to black and white")),
        ("look", "whole picture", "rotated by 90 degrees", ("rotate 90 degrees", "turn it by 90°", "rotate it by 90 degrees", "it's sideways, rotate by 90 degrees")),
        ("add", "black bar", "over the {paper}", ("black out the {paper}", "a black bar over the {paper}", "redact the {paper}", "cover the {paper} with a black bar")),
    ),
    "travel": (
        ("remove", "{nuisance}", "nothing", ASKED["remove"]),
        ("remove", "{nuisance} {where}", "nothing", ASKED["remove"]),
        ("add", "{extra}", "{spot}", ASKED["add"]),
        ("add", "{extra}", "over the {sight}", ASKED["add"]),
        ("replace", "sky", "{weather} sky", ASKED["replace"]),
        ("recolor", "sea", "{color}", ASKED["recolor"]),
        ("look", "horizon", "straight", ("level {s}", "straighten {s}", "{s} level", "{s} tilts, fix that")),
        ("restyle", "whole picture", "{season}", ("make it {g}", "same view but {g}", "as if it was {g}", "turn it into {g}", "it should look like {g}")),
        ("light", "whole picture", "{mood}", ASKED["light"]),
        ("move", "{kin}", "{far}", ASKED["move"]),
        ("give", "whole picture", "less {grade}", tuple(way.replace("{n}", "{grade}") for way in ASKED["less"])),
        ("brightness", "{sight}", "{touch} {light}", ASKED["more"]),
        ("caption", "bottom of the picture", "{caption}", ASKED["caption"]),
    ),
    "restoration": (
        ("remove", "{damage}", "nothing", ASKED["remove"]),
        ("remove", "{damage} across the {old}", "nothing", ASKED["remove"]),
        ("look", "{damage} in the {side} corner", "repaired", ASKED["mend"]),
        ("look", "faded {old}", "restored", ASKED["mend"]),
        ("recolor", "{old}", "{color}", ASKED["recolor"]),
        ("recolor", "whole picture", "natural colors", ("colorize it", "colourise please", "give it colour", "in colour please", "bring it into colour", "add natural colours")),
        ("look", "{old}", "{touch} sharper", ("sharpen the {old} {touch}", "{s} {touch} sharper", "bring out the {old} {touch}", "get {s} {touch} sharper")),
        ("give", "whole picture", "more {grade}", tuple(way.replace("{n}", "{grade}") for way in ASKED["rise"])),
        ("give", "whole picture", "less {grade}", tuple(way.replace("{n}", "{grade}") for way in ASKED["less"])),
        ("restyle", "whole picture", "sepia", ("sepia", "in sepia", "give it a sepia tone", "sepia like in the old days", "tint it sepia")),
        ("crop", "whole picture", "without the frame", ("crop the frame off", "cut off the white frame", "crop out the border", "without the frame")),
        ("resize", "whole picture", "twice as large", ("enlarge 2x", "upscale it twice", "twice the size", "make it twice as large")),
        ("replace", "{damage}", "plain wall", ASKED["replace"]),
    ),
}  # fmt: skip
TRADES = tuple(ERRANDS)

# What each trade says beside its edits.
TALK: dict[str, tuple[str, ...]] = {
    "retouching": (
        "hi all", "can someone help me with this one?", "it's our only photo with {kin}", "will tip 15 bucks", "pls no ai faces",
        "{kin} passed away last spring", "you guys are amazing", "hey everyone", "not urgent", "{kin} always hated that {worn}",
        "request", "budget 10 usd", "it is a present for {kin}", "the {who} just walked into our shot",
    ),
    "product": (
        "for the shop", "amazon listing", "need it by friday", "kindly do the following", "hero shot", "client notes, round two",
        "we have six more {goods}s like that", "the real {goods} is darker", "selling the {goods} next week", "catalogue page",
        "for now just this", "we want to see the {feature} well",
    ),
    "interior": (
        "what would our living room look like?", "this is our new flat", "just to get an idea", "the landlord allows it",
        "for the mood board", "we can't decide about the {room}", "list from the client", "it's the room with the {room}",
        "the {room} came with the house", "sorry it got long",
    ),
    "portrait": (
        "i still want to look like myself", "linkedin headshot", "for my application", "no beauty filter please", "subtle please",
        "the passport office refused this one", "it's for the agency", "{kin} hates this picture", "like the old jazz covers",
        "{kin} had a cold that day", "ta",
    ),
    "real estate": (
        "listing goes live tomorrow", "for the brochure", "nothing structural", "the agent asked for this", "front view",
        "hi team, edits for this house", "keep it honest", "standard package", "the {yard} is new", "we sell in may",
    ),
    "food": (
        "for the menu", "it should look tasty", "for our instagram", "the chef is picky", "cookbook page 12", "it looks cold",
        "shot with a phone, sorry", "this is our {dish}", "people order the {dish} every day", "insta",
    ),
    "meme": (
        "lol", "no questions", "make it cursed", "asap lmao", "you know what to do", "for the group chat", "ok so", "it's for a bet",
        "{kin} will hate it", "that {being} looks like my boss", "haha",
    ),
    "document": (
        "it's a scan", "needed for the tax office", "so that i can print it", "typo of mine", "nothing else of course",
        "for the archive", "took it with my phone", "the {paper} is not mine", "photo from today's meeting",
    ),
    "travel": (
        "honeymoon pic", "it rained all week", "so pretty there", "for a calendar", "our last evening", "it was so crowded",
        "thank you from brazil", "like it really was", "we waited an hour at the {sight}", "this is the {sight} in june",
        "{kin} took it",
    ),
    "restoration": (
        "taken in 1932", "{kin}'s album", "for her 90th birthday", "it hung in the sun for years", "from a slide",
        "the original is tiny", "god bless", "this is {kin} in 1951", "{kin}'s wedding", "so i've been told",
    ),
}  # fmt: skip


def ways_of(trade: str, number: int) -> str:
    """The key under which `WAYS` has the ways to ask for that errand."""
    return f"{trade} {number}"


WAYS = {
    ways_of(trade, number): ways
    for trade, errands in ERRANDS.items()
    for number, (_, _, _, ways) in enumerate(errands)
}
