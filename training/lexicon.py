"""The words captions are made of: every class of every attribute in its many names.

Only data, in the classes' order of ``training.scenes``. A word stands under a class only when it
says nothing false of any scene of that class, and nothing of another attribute: "snowy" is the
white ground of winter, "snowing" is the weather, "sunrise" is a time and not a sun in the sky.
Write "a" everywhere: ``training.captions`` turns it into "an" where it must.
"""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """One class's ways to be said."""

    nouns: tuple[str, ...]  # alone, in a list: "night", "fog"
    adjectives: tuple[str, ...]  # before a noun: "foggy", "moonlit"; may be empty
    phrases: tuple[str, ...]  # after a noun: "at night", "in the fog"
    clauses: tuple[str, ...]  # a sentence: "it is night"


def _words(nouns: str, adjectives: str, phrases: str, clauses: str) -> Words:
    return Words(
        *(
            tuple(word.strip() for word in column.split("|") if word.strip())
            for column in (nouns, adjectives, phrases, clauses)
        )
    )


TIME = {
    "dawn": _words(
        "dawn|sunrise|morning|early morning|daybreak|first light",
        "morning|early morning|dawn|sunrise",
        "at dawn|at sunrise|in the morning|early in the morning|in the early morning|at daybreak"
        "|at first light|before breakfast",
        "it is dawn|it is early morning|day is breaking|dawn is breaking|morning comes",
    ),
    "day": _words(
        "day|daytime|daylight|midday|noon|afternoon|broad daylight",
        "daytime|daylight|midday|afternoon|noon",
        "by day|during the day|in daylight|in broad daylight|at noon|at midday|in the afternoon"
        "|in the daytime|at daytime",
        "it is day|it is daytime|it is noon|it is midday|it is a day like any other",
    ),
    "sunset": _words(
        "sunset|dusk|evening|twilight|sundown|golden hour",
        "sunset|evening|twilight|dusk",
        "at sunset|at dusk|in the evening|at twilight|at sundown|during sunset|at golden hour"
        "|at the end of the day|at eventide",
        "it is sunset|it is evening|it is dusk|evening falls|dusk is falling|the day is ending",
    ),
    "night": _words(
        "night|nighttime|midnight|late night|dark night|night time",
        "night|midnight|nighttime|nocturnal|dark",
        "at night|by night|in the night|at midnight|during the night|at nighttime|late at night"
        "|after dark|in the dark|in the darkness|at night time",
        "it is night|it is late at night|it is midnight|night has fallen|it is dark",
    ),
}
WEATHER = {
    "clear": _words(
        "clear sky|clear weather|fair weather|clear|cloudless sky|clear skies|fine weather"
        "|no clouds",
        "clear|cloudless|fair",
        "under a clear sky|in clear weather|in fair weather|under clear skies"
        "|under a cloudless sky|without a cloud|with a clear sky|in fine weather",
        "the sky is clear|the weather is fair|the weather is clear|there is not a cloud",
    ),
    "cloudy": _words(
        "clouds|cloudy|overcast|cloudy sky|cloudy weather|many clouds|grey clouds|gray clouds",
        "cloudy|overcast|clouded",
        "under clouds|under a cloudy sky|under cloudy skies|in cloudy weather|with clouds"
        "|under an overcast sky|below drifting clouds|with clouds in the sky",
        "it is cloudy|the sky is cloudy|the sky is overcast|clouds fill the sky|clouds drift by",
    ),
    "foggy": _words(
        "fog|mist|foggy|misty|thick fog|haze|foggy weather",
        "foggy|misty|hazy|fog-covered|mist-covered",
        "in the fog|in fog|in the mist|in thick fog|in mist|wrapped in mist|in a haze|with fog"
        "|in foggy weather|behind a veil of mist",
        "it is foggy|it is misty|fog covers everything|mist hangs in the air|there is fog",
    ),
    "rainy": _words(
        "rain|rainy|rainfall|rainy weather|drizzle|downpour|raining|heavy rain|storm|showers",
        "rainy|stormy|rain-soaked|wet|drizzly",
        "in the rain|in rain|in heavy rain|during a downpour|in rainy weather|in a drizzle"
        "|with rain falling|with rain|in a storm",
        "it is raining|rain is falling|it rains|rain pours down|it is rainy|there is rain",
    ),
    "snowing": _words(
        "snowing|snowfall|falling snow|snowflakes|snowstorm|snow falling|blizzard|flurries",
        "",
        "in falling snow|in the snowfall|with snow falling|among snowflakes|in a snowstorm"
        "|with falling snow|while it is snowing|during a snowfall|in a blizzard",
        "it is snowing|snow is falling|it snows|snowflakes are falling|snowflakes drift down",
    ),
}
SEASON = {
    "spring": _words(
        "spring|springtime|april|spring season",
        "spring|springtime|spring-like",
        "in spring|in the spring|in springtime|in april|during spring|in early spring",
        "it is spring|spring has come|it is springtime",
    ),
    "summer": _words(
        "summer|summertime|july|summer season",
        "summer|summery|summertime",
        "in summer|in the summer|in summertime|in july|during summer|in high summer",
        "it is summer|summer is here|it is summertime",
    ),
    "autumn": _words(
        "autumn|fall|october|autumn leaves|fall season|autumn season",
        "autumn|autumnal|fall|october",
        "in autumn|in the fall|in fall|in october|during autumn|in the autumn|in late autumn",
        "it is autumn|it is fall|autumn has come|autumn is here",
    ),
    "winter": _words(
        "winter|snow|wintertime|january|snowy|snow on the ground|winter season|ice and snow",
        "winter|snowy|snow-covered|wintry|icy|frozen|snow covered",
        "in winter|in the winter|in the snow|in january|during winter|covered in snow"
        "|with snow on the ground|in deep snow|in wintertime|in snow",
        "it is winter|snow covers the ground|snow lies on the ground|winter has come"
        "|everything is covered in snow",
    ),
}
LIGHT = {
    "none": _words(
        "empty sky|plain sky|bare sky|nothing in the sky",
        "",
        "under an empty sky|under a plain sky|with nothing in the sky|under a bare sky",
        "the sky is empty|nothing is in the sky|the sky is bare",
    ),
    "sun": _words(
        "sun|sunshine|the sun|sunlight|bright sun|sun in the sky|shining sun",
        "sunlit",
        "under the sun|in the sunshine|in sunlight|with the sun in the sky|in the sun"
        "|with a shining sun|below a warm sun",
        "the sun is shining|the sun is in the sky|the sun shines|the sun is out",
    ),
    "moon": _words(
        "moon|moonlight|the moon|full moon|bright moon|moon in the sky|moonlit",
        "moonlit",
        "under the moon|in the moonlight|by moonlight|beneath a full moon|with the moon in the sky"
        "|under a bright moon|with a moon",
        "the moon is up|the moon is shining|the moon shines|the moon hangs in the sky",
    ),
    "stars": _words(
        "stars|starry sky|starlight|starry|many stars|twinkling stars|sky full of stars|milky way",
        "starry|starlit|star-filled",
        "under the stars|beneath the stars|under a starry sky|by starlight|with stars in the sky"
        "|under a sky full of stars|below countless stars|with stars|under the milky way",
        "the stars are out|stars fill the sky|stars are shining|the sky is full of stars",
    ),
    "aurora": _words(
        "aurora|northern lights|aurora borealis|polar lights|the northern lights|glowing aurora",
        "aurora-lit",
        "under the northern lights|under an aurora|beneath the aurora|with northern lights"
        "|under the aurora borealis|with an aurora in the sky|below the polar lights",
        "the northern lights are glowing|an aurora fills the sky|the aurora dances in the sky",
    ),
    "rainbow": _words(
        "rainbow|a rainbow|bright rainbow|rainbow in the sky",
        "",
        "under a rainbow|with a rainbow|beneath a rainbow|with a rainbow in the sky"
        "|below a wide rainbow",
        "there is a rainbow|a rainbow spans the sky|a rainbow is in the sky",
    ),
}
# Terrains, as what adjectives go before: (noun, what may lead into it).
_AMONG = ("in the", "among", "among the", "amid", "in", "surrounded by", "with", "over")
_BY = (
    "by the",
    "by a",
    "at the",
    "near the",
    "beside the",
    "next to the",
    "with a",
    "overlooking a",
)
TERRAIN = {
    "hills": [
        *(
            (noun, _AMONG)
            for noun in ("hills", "hills", "hills", "rolling hills", "meadows", "fields")
        ),
        *(
            (noun, ("in the", "in a", "with a"))
            for noun in ("countryside", "valley", "hill country")
        ),
        *((noun, ("on a", "on the")) for noun in ("hillside", "hill", "meadow")),
    ],
    "mountains": [
        *((noun, _AMONG) for noun in ("mountains", "mountains", "mountains", "peaks", "alps")),
        *((noun, _AMONG) for noun in ("mountain peaks", "high mountains", "highlands")),
        *(
            (noun, ("in a", "in the", "with a"))
            for noun in ("mountain landscape", "mountain range")
        ),
    ],
    "desert": [
        *((noun, ("in the", "in a", "across the", "with a")) for noun in ("desert", "desert")),
        *((noun, _AMONG) for noun in ("dunes", "sand dunes", "desert sands", "desert dunes")),
    ],
    "forest": [
        *(
            (noun, ("in the", "in a", "by a", "with a", "near the"))
            for noun in ("forest", "forest")
        ),
        *((noun, ("in the", "in a", "by a")) for noun in ("woodland", "pine forest", "wood")),
        *((noun, _AMONG) for noun in ("woods", "woods", "trees", "pines", "fir trees")),
    ],
    "sea": [
        *((noun, _BY) for noun in ("sea", "sea", "ocean", "ocean", "lake", "bay")),
        *(
            (noun, ("by the", "on the", "near the"))
            for noun in ("water", "shore", "coast", "seaside")
        ),
        *((noun, _AMONG) for noun in ("waves",)),
    ],
}
TERRAIN_CLAUSES = {
    "hills": ("hills roll into the distance", "there are hills"),
    "mountains": ("mountains rise behind", "there are mountains"),
    "desert": ("the desert is wide", "there are dunes"),
    "forest": ("the forest is deep", "there are trees all around"),
    "sea": ("the sea is wide", "there is water all around", "the ocean is near"),
}

KINDS = {
    "cottage": "cottage|cottage|house|cabin|hut|little house|home|farmhouse|chalet|country house",
    "lighthouse": "lighthouse|lighthouse|lighthouse|light house|beacon|lighthouse tower",
    "windmill": "windmill|windmill|windmill|mill|wind mill|dutch windmill",
    "castle": "castle|castle|castle|fortress|palace|fort|citadel",
    "tent": "tent|tent|tent|camping tent|tipi|teepee|yurt",
    "balloon": "balloon|balloon|hot air balloon|hot-air balloon|air balloon",
    "sailboat": "sailboat|sailboat|boat|sailing boat|yacht|sailing ship|ship|sail boat",
}
COLOURS = {
    "red": "red|red|red|red|scarlet|crimson|ruby|bright red|cherry red|dark red|vermilion",
    "orange": "orange|orange|orange|orange|tangerine|bright orange|amber|pumpkin orange",
    "yellow": "yellow|yellow|yellow|yellow|golden|lemon yellow|gold|bright yellow|mustard",
    "green": "green|green|green|green|emerald|jade|dark green|bright green|olive|lime green",
    "blue": "blue|blue|blue|blue|azure|navy|cobalt|sky blue|dark blue|bright blue|sapphire",
    "purple": "purple|purple|purple|purple|violet|plum|lilac|mauve|deep purple",
    "pink": "pink|pink|pink|pink|rose|hot pink|rosy|fuchsia|pale pink|bright pink",
    "white": "white|white|white|white|ivory|whitewashed|chalk white|pure white|pearl",
}
PLACES = {
    "left": "on the left|on the left|to the left|at left|on the left side|left side"
    "|on the left-hand side|at the left|to the left side",
    "centre": "in the middle|in the centre|in the center|at the centre|at the center|centred"
    "|centered|in the middle of the picture|in the center of the image",
    "right": "on the right|on the right|to the right|at right|on the right side|right side"
    "|on the right-hand side|at the right|to the right side",
}
JOINTS = "and|and|and|beside|next to|with|near|, and|,|together with|not far from"
SHORT_PLACES = {"left": "left", "centre": "centre|center|middle", "right": "right"}

OPENERS = (
    "a picture of|picture of|an illustration of|illustration of|a painting of|a drawing of"
    "|a view of|an image of|a photo of|a postcard of|a scene with|a landscape with"
    "|a beautiful picture of|a detailed illustration of|a lovely painting of"
    "|a storybook illustration of|artwork of|draw|draw me|please draw|show me|i want"
    "|i would like|create|make|paint|imagine|generate|behold|landscape:|scene:|a poster of"
    "|watercolour of|watercolor of|a sketch of|once there was"
)
FILLERS = (
    "cosy|cozy|lovely|little|small|tiny|old|quiet|lonely|charming|pretty|beautiful|big|tall|wooden"
    "|quaint|large|great|nice|peaceful|calm|cute|single|solitary|rustic|ancient|grand|simple|bright"
    "|dreamy|magical|humble|friendly|old-fashioned|handsome|colourful|colorful|painted"
)
SETTING_FILLERS = (
    "quiet|beautiful|calm|lovely|peaceful|cold|warm|still|silent|wide|gentle|serene|cool"
)
ENDINGS = (
    "highly detailed|detailed|beautiful|digital art|illustration|storybook style|flat illustration"
    "|masterpiece|best quality|4k|peaceful mood|soft light|soft colours|soft colors|vivid colours"
    "|vivid colors|landscape|scenery|cosy mood|cozy atmosphere|a lovely scene|wallpaper|postcard"
    "|vector art|very pretty|high quality|quiet|calm|picturesque|fairy tale|in bright colours"
    "|in soft colors|so beautiful|artstation|trending|poster|nature|travel poster|no people"
)
