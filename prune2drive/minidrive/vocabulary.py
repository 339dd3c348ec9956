"""Lists MiniDrive's words: what scenes show, what questions and answers contain, and what the tokenizer knows."""

from __future__ import annotations

from prune2drive.cameras import CAMERAS

VEHICLES = ("car", "truck", "bus")
PAINTED = (*VEHICLES, "pedestrian", "cyclist")  # kinds that come in every colour
PLURALS = {kind: f"{kind}s" for kind in (*VEHICLES, "pedestrian", "cyclist", "cone", "barrier")} | {"bus": "buses"}
KINDS = (*PLURALS, "light")  # a light is a traffic light
COLOURS = ("red", "blue", "green", "yellow", "white", "black")
STATUSES = ("Going ahead", "Turn left", "Turn right", "Stopped")
LIGHTS = ("Red", "Yellow", "Green")
NUMBERS = ("Zero", "One", "Two", "Three")

FRAME_SIZE = (1600, 900)  # pixels in which nuScenes, hence DriveLM, annotates
GRID = 8  # cells a side that a c-tag can point at
COLUMNS = tuple(f"{FRAME_SIZE[0] * (i + 0.5) / GRID:.1f}" for i in range(GRID))
ROWS = tuple(f"{FRAME_SIZE[1] * (i + 0.5) / GRID:.1f}" for i in range(GRID))
TAG_NUMBERS = tuple(range(1, 10))

# Words of DriveLM's questions that MiniDrive does not use, so that the tokenizer knows DriveLM's text too.
_DRIVELM = """
A B C D E F G H I In On The To There These Those This That What Which Who Why Where When Would Will Is Are Do Does
Should Based How Predict Please Identify Firstly Secondly Thirdly Except Because Considering Yes No None Keep Slow
Stop Turn Going Driving Back Up Many Accelerate Brake Change Remain Zero One Two Three Four Five ID IDs Steering
a ability about accelerate accelerating action actions after ahead all also an and another answer any anything are
area as at back backing based be because before behavior being between bicycle bicycles both brake brakes braking
brown bumper but by c camera can car cars change changing characteristics check close closest collision collisions
color comes condition conditions consider considered considering construction continue correct could count crossing
current dangerous decelerate decision describe description direction distance do does down drive driver driving due
ego either else every except far fast feasible first five follow following for four from front future gap gently get
getting go going gradually gray has have he high highway how if image images important in intersection into is issue
it its keep lane lanes lead leads left less level likely line lines located location low maintain many marking
markings may middle more most motorcycle motorcycles move movement moving much near nearby need next no none normal
not notice noticed object objects observe observed obstacle of off offset old on one only onto opposite options or
orange other others out over park parked part partly passing past path pedestrian perceived person possible
potential probability proceed rain reach reason reasoning relative relevant remain right road roads rules s safe
safely safety same scenario scene second sedan see select sharp should shows side sign signs six slight slightly
slow slowly small so some speed state stationary status stay steering still stop stopped straight structure such
sudden suddenly take taken taking than that the their them then there these they things third this those three
through time to together too toward traffic trailer trailers turn turning two up upon van vans vehicle vehicles very
view views visible visual waiting way weather what when where whether which while who why will with without would
yes yield zebra zero
""".split()

WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *CAMERAS,
            *KINDS,
            *PLURALS.values(),
            *COLOURS,
            *(colour.capitalize() for colour in COLOURS),
            *(kind.capitalize() for kind in KINDS),
            *(word for text in (*STATUSES, *LIGHTS, *NUMBERS) for word in text.split()),
            *(f"<c{number}," for number in TAG_NUMBERS),
            *(f",{column}" for column in COLUMNS),
            *(f",{row}>" for row in ROWS),
            *"0123456789",
            *".,?!:;<>()[]'\"-/%",
            *_DRIVELM,
        ]
    )
)


def c_tag(number: int, camera: str, column: int, row: int) -> str:
    """Returns DriveLM's identifier of an object, such as `<c1,CAM_FRONT,500.0,506.2>`, by its number and grid cell."""
    return f"<c{number},{camera},{COLUMNS[column]},{ROWS[row]}>"
