"""What photos show, in everyday words: nouns by what can be done to them, their attributes, owners and places.

Every list is data: a line more is a noun more. Some thousand names come from putting them together, see `ideas.py`.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(",") if word.strip())


MEN = _words(
    "man, guy, boy, groom, waiter, grandpa, dad, father, uncle, brother, old man, young man, best man, fisherman,"
    " policeman, businessman, dude, gentleman, grandfather, husband, boyfriend, king"
)
WOMEN = _words(
    "woman, girl, lady, bride, bridesmaid, waitress, grandma, mom, mum, mother, aunt, sister, old woman, young woman,"
    " businesswoman, little girl, grandmother, wife, girlfriend, queen, ballerina"
)
OTHERS = _words(
    "person, kid, child, baby, toddler, chef, driver, cyclist, tourist, photographer, nurse, teacher, cop, player,"
    " batter, umpire, skier, surfer, skateboarder, runner, swimmer, farmer, doctor, pilot, singer, guitarist, dancer,"
    " student, worker, stranger, pedestrian, jogger, model, seller, barista, soldier, rider, climber, teenager,"
    " diver, referee, catcher, snowboarder, passerby, security guard, photobomber, friend, coach, clown"
)
GROUPS = _words(
    "people, kids, children, tourists, bystanders, guests, players, couple, crowd, passers-by, friends, dancers,"
    " girls, boys, men, women, pedestrians, bridesmaids, spectators, students, strangers"
)
ANIMALS = _words(
    "dog, cat, horse, cow, sheep, bird, puppy, kitten, elephant, giraffe, zebra, bear, duck, goose, pigeon, parrot,"
    " rabbit, goat, pig, donkey, fox, deer, lion, tiger, monkey, squirrel, turtle, fish, seagull, owl, chicken,"
    " rooster, swan, penguin, frog, hamster, wolf, camel, llama, butterfly, labrador, poodle, pony, calf, lamb,"
    " crow, eagle, flamingo, koala, panda, raccoon, corgi, husky, seal, dolphin, crab"
)
HERDS = _words(
    "dogs, cats, birds, horses, cows, ducks, pigeons, seagulls, sheep, elephants, zebras, giraffes, puppies, geese"
)
CLOTHES = _words(
    "shirt, t-shirt, jacket, coat, dress, skirt, sweater, hoodie, hat, cap, scarf, tie, bow tie, suit, blouse, vest,"
    " cardigan, blazer, apron, helmet, backpack, handbag, belt, uniform, jersey, raincoat, veil, robe, beanie, top,"
    " cape, wristband, necklace, watch, sun hat, wedding dress, tank top, swimsuit, purse, bag, outfit, crown, badge"
)
PAIRS = _words(
    "shoes, boots, sneakers, pants, jeans, shorts, socks, gloves, glasses, sunglasses, earrings, leggings, sandals,"
    " trousers, clothes, heels, headphones, mittens"
)
BODY = _words("hair, beard, face, skin, nose, moustache, neck, forehead, smile, makeup, lipstick, fringe")
BODY_PAIRS = _words("eyes, lips, teeth, hands, eyebrows, nails, cheeks, eyelashes, arms, legs, dark circles")
ANIMAL_PARTS = _words("collar, tail, fur, leash, nose, head, saddle, coat, bandana, mane")
ANIMAL_PAIRS = _words("ears, eyes, paws, spots, wings, horns, whiskers")
VEHICLES = _words(
    "car, truck, bus, van, taxi, motorcycle, bicycle, bike, scooter, train, boat, ship, airplane, plane, helicopter,"
    " tram, tractor, pickup truck, sailboat, yacht, canoe, police car, fire truck, ambulance, sports car, jeep, kayak,"
    " trailer, minivan, school bus, skateboard, caravan, convertible, jet, motorbike, ferry"
)
FURNITURE = _words(
    "chair, table, sofa, couch, bed, desk, bench, armchair, stool, shelf, bookshelf, cabinet, dresser, nightstand,"
    " coffee table, dining table, lamp, floor lamp, chandelier, mirror, rug, carpet, curtain, pillow, blanket,"
    " cushion, bathtub, sink, toilet, fireplace, wardrobe, picture frame, kitchen island, counter, rocking chair,"
    " bed frame, headboard, loveseat, ottoman, side table, ceiling fan, towel rack, shower, mattress, tablecloth"
)
DEVICES = _words(
    "laptop, computer, phone, tablet, keyboard, mouse, monitor, tv, television, camera, microphone, speaker, fridge,"
    " refrigerator, oven, microwave, toaster, washing machine, remote, radio, printer, blender, kettle,"
    " coffee machine, stove, fan, smartwatch, game controller, screen, ipad, router, hair dryer, vacuum cleaner"
)
OBJECTS = _words(
    "cup, mug, glass, bottle, plate, bowl, vase, book, basket, box, candle, clock, umbrella, suitcase, toy, balloon,"
    " teddy bear, guitar, kite, ball, surfboard, frisbee, tennis racket, baseball bat, skis, snowboard, bucket,"
    " flower pot, knife, fork, spoon, tray, teapot, wine glass, jar, ladder, trash can, towel, pen, pencil, notebook,"
    " newspaper, painting, statue, ring, soap dispenser, toothbrush, scissors, flag, tent, wheelchair, stroller,"
    " piano, violin, drum, cutting board, frying pan, pot, lantern, key, wallet, envelope, perfume bottle, paddle,"
    " soccer ball, basketball, football, golf club, fishing rod, bird cage, hammock, wreath, trophy, parasol, globe,"
    " water bottle, shopping bag, plastic bag, cigarette, cooler, hose, wheelbarrow, helmet, life jacket, ski pole"
)
FOOD = _words(
    "cake, pizza, burger, sandwich, apple, orange, banana, lemon, bread, croissant, donut, salad, soup, steak, pasta,"
    " cookie, pie, muffin, hot dog, sushi, cheese, egg, pancake, ice cream, cupcake, watermelon, strawberry, tomato,"
    " carrot, avocado, mango, pear, bagel, taco, waffle, omelette, broccoli, rice, coffee, tea, wine, beer, juice,"
    " lemonade, cocktail, sauce, whipped cream, garnish, bun, pineapple"
)
FOODS = _words("fries, strawberries, grapes, noodles, cherries, pancakes, cookies, vegetables, sprinkles, herbs, nuts")
PLANTS = _words(
    "tree, palm tree, plant, potted plant, flower, rose, sunflower, bush, hedge, cactus, bouquet, pine tree, tulip,"
    " christmas tree, ivy, vine, houseplant, fern, orchid, oak tree, bonsai, shrub"
)
OUTSIDE = _words(
    "house, building, church, tower, bridge, barn, shed, garage, fence, gate, door, window, roof, balcony, porch,"
    " driveway, sidewalk, street lamp, traffic light, stop sign, fire hydrant, mailbox, parking meter, street sign,"
    " fountain, swimming pool, pool, wall, chimney, staircase, lighthouse, castle, windmill, telephone pole, crane,"
    " billboard, garden, patio, front door, garage door, skyscraper, cabin, pier, dock, scaffolding, dumpster, rock"
)
AREAS = _words("sky, grass, lawn, floor, ceiling, ground, sand, water, sea, road, snow, lake, river, field, horizon")
HOUSE_PARTS = _words("walls, windows, curtains, cabinets, tiles, shutters, lights, stairs, pillows, chairs, cushions")
READABLE = _words(
    "sign, stop sign, street sign, banner, billboard, poster, label, menu, t-shirt, mug, cake, license plate, cover,"
    " book cover, business card, storefront, chalkboard, whiteboard, newspaper, ticket, box, bus, truck, cap,"
    " name tag, invitation, bottle label, price tag, jersey, screen, neon sign, train, boat, shirt, hat, van, card,"
    " letter, certificate, invoice, flyer, phone screen, shop window, packaging, book, sweatshirt, scoreboard, sticker"
)
FLAWS = _words(
    "scratches, dust spots, wrinkles, stain, stains, pimple, pimples, acne, glare, reflection, shadow, watermark,"
    " date stamp, timestamp, power lines, red eye, lens flare, crease, creases, tear, blemishes, scar, cracks, crumbs,"
    " fingerprints, logo, text, mole, stray hairs, trash, clutter, cables, wires, sticker, graffiti, coffee stain,"
    " fold line, flyaway hair, price tag, noise, dirt, double chin, sweat stains, spots, barcode, bags under the eyes,"
    " photobomber, tattoo, braces, fence, people, cars, bin, trash bins, tourists, caption, border, weeds, antenna"
)
# What can be put into a photo, beside whatever it may show anyway.
NEW_THINGS = _words(
    "rainbow, moon, sun, hot air balloon, drone, ufo, fog, snow, rain, lightning, fireworks, confetti, string lights,"
    " shadow, reflection, bird, butterfly, flock of birds, cloud, clouds, stars, sunglasses, party hat, santa hat,"
    " crown, top hat, cowboy hat, cup of coffee, glass of water, glass of wine, bouquet of flowers, slice of lemon,"
    " vase of flowers, stack of books, bowl of fruit, pile of leaves, pair of sunglasses, pair of boots, wall clock,"
    " welcome mat, price tag, gift box, christmas lights, pumpkin, snowman, smoke, steam, campfire, waterfall, pond,"
    " flower crown, bow tie, speech bubble, halo, superhero cape, wings, tattoo, necklace, cherry, mint leaves,"
    " picture of a ship, piece of cake, bottle of wine, bicycle, basket of apples, mountain, swing, treehouse, dragon"
)
WEARABLE = _words(
    "hat, party hat, santa hat, crown, scarf, bow tie, sunglasses, pair of sunglasses, glasses, cape, helmet, cap,"
    " flower crown, necklace, backpack, cowboy hat, sombrero, top hat, jacket, sweater, tie, mask, eye patch,"
    " red nose, wig, bandana, headphones, wristband, watch, tiara, vest, suit, tuxedo, moustache, beard, halo,"
    " wizard hat, raincoat, apron, necktie, chef hat, baseball cap, pirate hat, leather jacket, fake moustache"
)

OWNERS = _words(
    "mom, mum, dad, grandma, grandpa, sister, brother, wife, husband, son, daughter, boss, aunt, uncle, baby"
)

COLORS = _words(
    "red, blue, green, yellow, orange, purple, pink, brown, black, white, gray, grey, beige, teal, turquoise, navy,"
    " maroon, gold, silver, cream, mint green, lavender, coral, olive green, sage green, emerald green, navy blue,"
    " royal blue, sky blue, light blue, dark blue, dark green, light green, bright red, bright yellow, hot pink,"
    " pastel pink, pastel blue, dark brown, charcoal gray, burgundy, mustard yellow, off-white, ivory, bronze,"
    " golden, black and white, red and white, blue and gold, matte black, neon green, deep purple, salmon pink, wine red, copper, khaki, peach, lime green"
)
HAIR_COLORS = _words(
    "blonde, brown, black, red, gray, white, ginger, platinum blonde, dark brown, pink, auburn, silver"
)
SHADES = _words(
    "a darker shade, a lighter shade, a brighter red, a warmer brown, a deeper blue, a softer pink, a paler green"
)
MATERIALS = _words(
    "wood, metal, glass, leather, denim, silk, velvet, marble, stone, brick, gold, plastic, ceramic, wool, cotton,"
    " steel, stainless steel, concrete, bamboo, oak, copper, crystal, paper, cardboard, ice, chrome, bronze, linen,"
    " lace, fur, granite, clay, wicker, rubber, carbon fiber, walnut, brushed steel, tweed, suede, satin, porcelain, white marble with gray veins, red and black leather, gold and silver,"
    " dark wood, white marble, clear glass, rusty iron, knitted wool, polished brass, wooden, golden, quilted fabric"
)
PATTERNS = _words(
    "stripes, polka dots, a floral pattern, a checkered pattern, plaid, zebra stripes, leopard print, camouflage,"
    " flames, stars, a striped pattern, flowers, a geometric pattern, red stars, tartan, a paisley pattern"
)
SIGHTS = _words(  # what a screen, a painting, a plate can hold
    "a blank page, a video game, a world map, a sunset photo, a portrait of a cat, lines of code, a weather map,"
    " a football match, a nature documentary, a mountain landscape, a cartoon, an abstract painting, a city skyline,"
    " a black screen, a desktop wallpaper, a still life, a spreadsheet, a pastoral scene, a website, a love letter"
)
TIMES = _words("3:00, 12:00, noon, midnight, 10:10, half past six, 7:45, quarter to nine, 6:30")
FILLINGS = _words(
    "pepperoni, mushrooms, cheese, pineapple, basil, chocolate, strawberries, ham and cheese, olives, cream"
)
SIZES = _words("small, big, large, tiny, tall, huge, long, short, wide, narrow")
LOOKS = _words(
    "old, new, dirty, shiny, broken, empty, half-empty, wooden, metal, vintage, modern, striped, blurry, ugly, rusty,"
    " open, parked, round, square, plastic, leather, torn, floral, faded, wet, messy, dark, glass, antique, fluffy"
)
FUR = _words("brown, black, white, spotted, fluffy, sleeping, small, big, black and white, golden, old, tiny, wet")
PERSON_LOOKS = _words(
    "tall, blurry, smiling, bald, blonde, old, young, sitting, shirtless, drunk, bearded, standing, random"
)
DOING = _words(
    "holding a phone, looking away, waving, smiling, sitting on the bench, standing in the back, walking by,"
    " talking on the phone, wearing a hat, eating, riding a bike, holding the umbrella, in the wheelchair, laughing,"
    " crossing the street, with the backpack, with the beard, with the sunglasses, with the red hair, with the camera"
)
SIDES = _words("left, right, front, back, rear, top, bottom, middle, upper left, upper right, foreground, background")
ORDINALS = _words("first, second, third, last")
WHERE = _words(
    "on the left, on the right, in the background, in the foreground, in the middle, in the back, in the front,"
    " at the top, at the bottom, in the corner, in the top left corner, in the bottom right corner, on the far left,"
    " on the far right, behind us, behind me, in the center, to the left, to the right, on the left side,"
    " on the right side, in the distance, at the edge, next to me"
)
# Places by the thing that is named in them.
BESIDE = _words(
    "next to, beside, near, behind, in front of, to the left of, to the right of, left of, right of, close to, by"
)
UPON = _words("on, on top of, under, above, over, below, underneath, against")
INSIDE = _words("in, inside")
CORNERS = _words(
    "in the background, in the foreground, on the left, on the right, in the sky, on the table, on the floor,"
    " in the top left corner, in the bottom right corner, in the middle, in the center, on the wall, on the ground,"
    " at the top, at the bottom, in the corner, in the distance, on the grass, on the left side, on the right side,"
    " in the upper right, in the upper left, on the desk, in the window, on the roof, along the road, in the water,"
    " at the bottom left, at the top right, in the upper right sky, on the shelf, at the front, on the horizon"
)
TARGETS = _words(
    "to the left, to the right, to the center, closer to the camera, further back, to the foreground,"
    " to the background, to the top left corner, to the bottom right corner, a bit to the left, a bit to the right,"
    " to the middle, up, down, higher, lower, slightly up, to the other side, further to the left, to the front,"
    " closer together, to the far right, a little lower, to the edge of the frame, to the upper third"
)
STYLES = _words(
    "oil painting, watercolor, watercolor painting, pencil sketch, sketch, cartoon, anime, comic book, pixel art,"
    " pop art, black and white, sepia, vintage film, polaroid, pixar, studio ghibli, impressionist painting,"
    " charcoal drawing, cyberpunk, line art, 3d render, lego, claymation, film noir, stained glass, mosaic, low poly,"
    " 80s retro, old photograph, renaissance painting, van gogh, crayon drawing, graphic novel, manga, steampunk,"
    " soft and dreamy, dark and moody, off-white and simple, bright and playful, vintage postcard, paper cut, ukiyo-e, cinematic, gothic, art deco, minimalist, fairy tale, disney, vaporwave"
)
SCENERY = _words(
    "beach, forest, city street, mountain landscape, park, desert, studio, garden, office, library, kitchen, farm,"
    " snowy forest, tropical beach, sunset sky, night city, brick wall, meadow, jungle, cafe, castle, stadium,"
    " space station, savannah, lake, vineyard, living room, rooftop, harbor, waterfall, field of sunflowers,"
    " christmas market, starry sky, rolling hills, classroom, museum, train station, japanese garden, ski resort,"
    " concert stage, gym, subway station, flower field, luxury hotel, wooden wall, bookshelf, paris street, skatepark,"
    " winter landscape, cloudy sky, blue sky with white clouds, street with trees, bathroom with marble walls"
)
SCENERY_TIMES = _words(
    "at sunset, at night, in autumn, in winter, at dawn, in the rain, with snow, in spring, with palm trees"
)
PLAIN_GROUNDS = _words(
    "plain white, pure white, solid white, plain black, transparent, solid blue, light gray, neutral gray, soft beige,"
    " pastel pink, a white gradient, dark gray, solid green, a soft gradient, marble, bokeh lights, a green screen"
)
LIGHTS = _words(
    "golden hour light, warm evening light, soft studio light, morning light, candlelight, moonlight, neon light,"
    " dramatic light, natural daylight, sunset light, backlight, soft window light, cold blue light, spotlight,"
    " a golden-hour feel, a warm glow, a sunset glow, moody lighting, cinematic lighting, rim light, stage lighting,"
    " more light, less light, sunlight, firelight, overcast light, harsh sunlight, a soft glow"
)
BRIGHTNESS = _words(
    "brighter, darker, a bit brighter, much brighter, a little darker, less dark, lighter, warmer, softer, more even, less harsh, more dramatic, moodier"
)
WORDS_SHOWN = _words(
    "OPEN, SALE, Happy Birthday, Welcome, STOP, Just Married, Fresh Coffee, 50% OFF, Hello World, CLOSED, For Rent,"
    " Bakery, NYC, Cafe Luna, Merry Christmas, Class of 2024, TEAM ANNA, SOLD, Monday again, Best Dad Ever, Lemonade,"
    " No Parking, Love, Chapter One, VIP, Room 12, LONDON, Grand Opening, Thank You, Slow Down, Table 7, Vegan,"
    " Save the date, Main Street, 2025, Number 9, Mia & Tom, Organic Honey, The End, Surf, ABC, 42, Ocean View,"
    " Paris, Free Hugs, EXIT, Taxi, GO TIGERS, Fishing, Bon Appetit, Since 1987, Hot Deals, Smile, 12:30, Platform 4,"
    " it was me, Rex, Limited Edition, New York City, 8, CUBS, Keep Calm, Joe's Diner, DANGER, Open Daily 9-5, Cheers"
)
PERSON_POSES = _words(  # as "have X ..." says it -> as a goal says it
    "smile:smiling, wave:waving, look at the camera:looking at the camera, close his eyes:eyes closed,"
    " cross his arms:arms crossed, sit down:sitting, stand up:standing, look to the left:looking to the left,"
    " look up:looking up, jump:jumping, dance:dancing, laugh:laughing, raise his hand:hand raised,"
    " hold a balloon:holding a balloon, hold an umbrella:holding an umbrella, point at the sky:pointing at the sky,"
    " stand straight:standing straight, frown:frowning, give a thumbs up:giving a thumbs up, wink:winking,"
    " open his eyes:eyes open, turn around:turned around, walk a dog:walking a dog, run:running, clap:clapping,"
    " look down:looking down, read a book:reading a book, sleep:sleeping, drink coffee:drinking coffee,"
    " face the camera:facing the camera, close his mouth:mouth closed, hold hands:holding hands, kneel:kneeling,"
    " lie down:lying down, lean on the wall:leaning on the wall, wear no smile:not smiling, shake hands:shaking hands,"
    " play the guitar:playing the guitar, eat a burger:eating a burger, ride a horse:riding a horse,"
    " put his hands in his pockets:hands in pockets, stick out his tongue:tongue out, shout:shouting, hug:hugging"
)
ANIMAL_POSES = _words(
    "sit:sitting, lie down:lying down, stand:standing, look at the camera:looking at the camera, sleep:sleeping,"
    " jump:jumping, lift its head:head lifted, lower its head:head lowered, open its mouth:mouth open, run:running,"
    " stick out its tongue:tongue out, wag its tail:wagging its tail, raise a paw:paw raised, smile:smiling,"
    " roll over:rolling over, look up:looking up, eat grass:eating grass, stretch:stretching, bark:barking,"
    " spread its wings:wings spread, close its eyes:eyes closed, catch a ball:catching a ball, yawn:yawning,"
    " stand on its hind legs:standing on its hind legs, look to the right:looking to the right, swim:swimming,"
    " raise its front legs:front legs raised, turn its head:head turned, eat a banana:eating a banana"
)
STATES = _words(
    "open, closed, upside down, tilted, upright, folded, on its side, half open, vertical, horizontal, facing left, facing the camera, rotated by 90 degrees, standing up"
)
BIGGER = _words(
    "bigger, smaller, larger, taller, wider, thinner, shorter, longer, twice as big, half the size, much bigger,"
    " a bit smaller, slightly larger, huge, tiny, a lot bigger, three times bigger, 20% smaller, double the size, slimmer"
)
PHOTO_LOOKS = _words(
    "sharper, more vivid, crisper, less blurry, more colorful, less saturated, warmer, cooler, more saturated,"
    " less noisy, clearer, a bit sharper, less grainy, less yellow, high resolution, slightly warmer, more vibrant"
)
PHOTO_GIVEN = _words(
    "more contrast, less contrast, more saturation, a vignette, film grain, more sharpness, more color, less noise,"
    " a shallow depth of field, motion blur, higher contrast, more detail, less grain, a soft blur, more clarity"
)
PART_LOOKS = _words(
    "smoother, sharper, blurred, softer, clearer, greener, cleaner, more vivid, less shiny, out of focus,"
    " whiter, more saturated, less red, more visible, less wrinkled, more detailed, more even, crisper, in focus"
)
HAIR_LENGTHS = _words("longer, shorter, fuller, shoulder length, thicker")
HAIR_LOOKS = HAIR_LENGTHS + _words("curly, straight, wavier, messier, neater")
SHAPES = _words(
    "a square, square, 16:9, 4:5, a vertical format, portrait format, landscape format, 1:1, passport size, a circle, a wide banner, 3:2, A4, a headshot, 9:16"
)
PHOTO = _words("photo, picture, image, pic, shot, whole photo, whole picture, entire image, photograph, scene")

# Plural or uncountable: said without "a".
MASSES = frozenset(
    "fog snow rain lightning smoke steam hair bread rice pasta coffee tea wine beer juice lemonade sauce broccoli"
    " salad soup whipped grass water sand fur ivy sushi cheese confetti text graffiti trash clutter glare noise dirt"
    " makeup sunlight sheep fish people children geese men women mint acne string christmas".split()
)


def poses(pairs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """`"wave:waving"` -> what is said after "have X", and the goal."""
    halves = (pair.split(":") for pair in pairs)
    return tuple((said, goal) for said, goal in halves)


def is_plural(noun: str) -> bool:
    """Whether a noun phrase is said with "they" and without "a", by its head."""
    head = noun.split(" of ")[0].split(" in ")[0].split(" on ")[0].split()[-1]
    known = head in {"people", "children", "men", "women", "geese", "skis", "scissors"}
    return known or (head.endswith("s") and not head.endswith(("ss", "us", "is")) and head not in {"dress", "lens"})


def with_article(noun: str) -> str:
    """The noun phrase as it is said of something new: with "a" or "an", unless it is plural or cannot be counted."""
    words = noun.split()
    if words[0] in {"a", "an", "the", "some", "another", "two", "three"} or is_plural(noun):
        return noun
    if words[0] in MASSES or (words[-1] in MASSES and " of " not in noun):
        return noun
    sounds = noun.startswith(("a", "e", "i", "o", "u")) and not noun.startswith(("uni", "one", "ufo", "uku", "use"))
    return f"{'an' if sounds or noun.startswith('hour') else 'a'} {noun}"


def definite(name: str) -> str:
    """The name of something that is there, as it is said: with "the", unless its first word does without."""
    return name if name.split()[0] in {"both", "all", "everyone", "everybody"} else f"the {name}"
