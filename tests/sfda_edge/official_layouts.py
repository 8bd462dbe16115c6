"""Folders as the official downloads have them, a few small images large.

Paths and numbers are written out from the data sets' own descriptions, so that the readers are
compared with something that is not theirs. Every raw value that a data set documents stands
somewhere in its label maps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

IMAGE_HW = (32, 64)
Labels = np.ndarray  # (H, W) raw values

CITYSCAPES_IDS = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
    **{19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"},
    **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}
TRAIN_IDS = dict(enumerate(CITYSCAPES_IDS.values()))
SYNTHIA_IDS = {
    **{1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation", 7: "pole"},
    **{8: "car", 9: "traffic sign", 10: "person", 11: "bicycle", 12: "motorcycle"},
    **{15: "traffic light", 17: "rider", 19: "bus", 21: "wall"},
}
CROSS_CITY_IDS = {
    number: name
    for number, name in CITYSCAPES_IDS.items()
    if name not in ("wall", "fence", "pole", "terrain", "truck", "train")
}
SYNPASS_IDS = {
    **{1: "building", 2: "fence", 4: "person", 5: "pole", 6: "road", 7: "road", 8: "sidewalk"},
    **{9: "vegetation", 10: "car", 11: "wall", 12: "traffic sign", 13: "sky"},
    **{18: "traffic light", 22: "terrain"},
}
MAPILLARY_IDS = {
    **{13: "road", 24: "road", 41: "road", 2: "sidewalk", 15: "sidewalk", 17: "building"},
    **{6: "wall", 3: "fence", 45: "pole", 47: "pole", 48: "traffic light", 50: "traffic sign"},
    **{30: "vegetation", 29: "terrain", 27: "sky", 19: "person", 20: "rider", 21: "rider"},
    **{22: "rider", 55: "car", 61: "truck", 54: "bus", 58: "train", 57: "motorcycle"},
    **{52: "bicycle"},
}
CAMVID_INDICES = {
    **{0: "sky", 1: "building", 2: "pole", 3: "road", 4: "pavement", 5: "tree"},
    **{6: "sign/symbol", 7: "fence", 8: "car", 9: "pedestrian", 10: "bicyclist"},
}
ENDOVIS17_IDS = {
    **{0: "background", 1: "bipolar forceps", 2: "prograsp forceps", 3: "large needle driver"},
    **{4: "vessel sealer", 5: "grasping retractor", 6: "monopolar curved scissors", 7: "other"},
}
ENDOVIS18_IDS = {
    **{0: "background", 1: "bipolar forceps", 2: "prograsp forceps", 3: "large needle driver"},
    **{4: "monopolar curved scissors", 5: "ultrasound probe", 6: "suction instrument"},
    **{7: "clip applier"},
}
STANFORD_NAMES = [
    *("beam", "board", "bookcase", "ceiling", "chair", "clutter", "column", "door", "floor"),
    *("sofa", "table", "wall", "window"),
]
CAMVID32_COLOURS = {
    "sky": ["128,128,128"],
    "building": ["192,0,128", "0,128,64", "128,0,0", "64,0,64", "64,192,0"],
    "pole": ["192,192,128"],
    "road": ["128,64,128", "128,128,192", "128,0,192", "192,0,64"],
    "pavement": ["0,0,192", "64,192,128"],
    "tree": ["128,128,0", "192,192,0"],
    "sign/symbol": ["192,128,128", "0,64,64", "128,128,64", "0,0,64"],
    "fence": ["64,64,128"],
    "car": [
        *("64,0,128", "64,128,192", "192,128,192", "192,64,128", "64,0,192", "192,0,192"),
        "128,64,64",
    ],
    "pedestrian": ["64,64,0", "192,128,64"],
    "bicyclist": ["0,128,192"],
    "": ["0,0,0", "64,128,64"],
}


def values(numbers: Iterable[int], hw: tuple[int, int] = IMAGE_HW) -> Labels:
    """Every number in turn, in columns; all rows alike."""
    listed = list(numbers)
    row = np.array([listed[column % len(listed)] for column in range(hw[1])])
    return np.tile(row, (hw[0], 1))


def picture(path: Path, hw: tuple[int, int] = IMAGE_HW) -> None:
    """An image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.as_posix().encode())
    noise = np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)
    Image.fromarray(noise).save(path)


def index_image(path: Path, labels: Labels, *, palette: bool = False) -> None:
    """Raw values as grey levels, or as indices of a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if palette:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)


def colour_image(path: Path, pixels: np.ndarray) -> None:
    """(H, W, 3) RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def cityscapes(root: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "munster"), ("test", "bonn")):
        for frame in range(2):
            stem = f"{city}/{city}_00000{frame}_000019"
            picture(root / f"leftImg8bit/{split}/{stem}_leftImg8bit.png")
            ids = root / f"gtFine/{split}/{stem}_gtFine_labelIds.png"
            index_image(ids, values([0]) if split == "test" else values(range(34)))
            if split == "train":  # the official scripts have made them here alone
                file = root / f"gtFine/{split}/{stem}_gtFine_labelTrainIds.png"
                index_image(file, values([*range(19), 255]))


def gta5(root: Path) -> None:
    for number in ("00001", "00002", "15188", "17705"):
        picture(root / f"images/{number}.png")
        index_image(root / f"labels/{number}.png", values(range(35)), palette=True)
    larger = values(range(35), (64, 128))
    index_image(root / "labels/00002.png", larger, palette=True)


def synthia(root: Path) -> None:
    for number in range(2):
        picture(root / f"RGB/000000{number}.png")
        path = root / f"GT/LABELS/000000{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        classes = values(range(23)).astype(np.uint16)
        instances = np.full_like(classes, 300 + number)
        # OpenCV writes blue, green, red: the class is in the red channel.
        cv2.imwrite(str(path), np.stack([np.zeros_like(classes), instances, classes], axis=2))


def cross_city(root: Path) -> None:
    for city in ("Rome", "Rio", "Tokyo", "Taipei"):
        for number in range(2):
            picture(root / f"{city}/Images/Train/pano_0000{number}_2_180.jpg")
            picture(root / f"{city}/Images/Test/pano_0001{number}_0_0.png")
            file = root / f"{city}/Labels/Test/pano_0001{number}_0_0_eval.png"
            index_image(file, values([*range(34), 255]))


def kitti(root: Path) -> None:
    for number in range(2):
        picture(root / f"training/image_2/00000{number}_10.png")
        index_image(root / f"training/semantic/00000{number}_10.png", values(range(34)))
        colour_image(root / f"training/semantic_rgb/00000{number}_10.png", np.zeros((8, 8, 3)))
        picture(root / f"testing/image_2/00000{number}_10.png")


def acdc(root: Path) -> None:
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "val", "test"):
            stem = f"{condition}/{split}/GOPR0475/GOPR0475_frame_000041"
            picture(root / f"rgb_anon/{stem}_rgb_anon.png")
            reference = stem.replace(f"/{split}/", f"/{split}_ref/")
            picture(root / f"rgb_anon/{reference}_rgb_ref_anon.png")
            if split != "test":
                labels = values([*range(19), 255])
                index_image(root / f"gt/{stem}_gt_labelTrainIds.png", labels)


def bdd100k(root: Path) -> None:
    for split in ("train", "val", "test"):
        picture(root / f"images/10k/{split}/0a0a0b1a-7c39d841.jpg")
        if split != "test":
            file = root / f"labels/sem_seg/masks/{split}/0a0a0b1a-7c39d841.png"
            index_image(file, values([*range(19), 255]))


def bdd100k_before(root: Path) -> None:
    for split in ("train", "val", "test"):
        picture(root / f"seg/images/{split}/0a0a0b1a-7c39d841.jpg")
        if split != "test":
            file = root / f"seg/labels/{split}/0a0a0b1a-7c39d841_train_id.png"
            index_image(file, values([*range(19), 255]))


def mapillary(root: Path) -> None:
    for split in ("training", "validation", "testing"):
        picture(root / f"{split}/images/_1Gn_xkw7sa_i9GU4mkxxQ.jpg")
        if split != "testing":
            file = root / f"{split}/labels/_1Gn_xkw7sa_i9GU4mkxxQ.png"
            index_image(file, values(range(66), (32, 66)), palette=True)
            picture(root / f"{split}/images/_1Gn_xkw7sa_i9GU4mkxxQ.jpg", (32, 66))


def mapillary_v2(root: Path) -> None:
    for split in ("training", "validation", "testing"):
        picture(root / f"{split}/images/aaa.jpg", (32, 66))
        if split != "testing":
            file = root / f"{split}/v1.2/labels/aaa.png"
            index_image(file, values(range(66), (32, 66)), palette=True)
            other = root / f"{split}/v2.0/labels/aaa.png"
            index_image(other, values(range(124), (32, 66)), palette=True)


def idd(root: Path) -> None:
    """The first five objects are one above the other, in bands; later ones lie on top."""
    height, width = IMAGE_HW
    bands = ["sky", "building", "non-drivable fallback", "autorickshaw", "road"]
    objects = [{"label": "vegetation", "polygon": box(0, 0, width, height)}]
    for number, label in enumerate(bands):
        band = box(0, 6 * number, width, 6 * number + 5)
        objects.append({"label": label, "polygon": band})
    objects.append({"label": "car", "polygon": box(0, 0, width, height), "deleted": 1})
    for split in ("train", "val", "test"):
        for name, ending in (("000/100", "png"), ("201/frame0029", "jpg")):
            picture(root / f"leftImg8bit/{split}/{name}_leftImg8bit.{ending}")
            if split != "test":
                file = root / f"gtFine/{split}/{name}_gtFine_polygons.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                content = {"imgHeight": height, "imgWidth": width, "objects": objects}
                file.write_text(json.dumps(content))


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    """A rectangle's corners, the last column and row included."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def camvid(root: Path) -> None:
    for split in ("train", "val", "test"):
        for frame in ("0001TP_006690", "0001TP_006720"):
            picture(root / f"{split}/{frame}.png")
            index_image(root / f"{split}annot/{frame}.png", values(range(12)))


def camvid32(root: Path) -> None:
    colours = [[int(v) for v in c.split(",")] for cs in CAMVID32_COLOURS.values() for c in cs]
    pixels = np.array(colours)[values(range(len(colours)))]
    frames = ("0001TP_006690", "0006R0_f00930", "0016E5_00390")  # train
    frames += ("0016E5_07959", "0016E5_08159")  # val
    frames += ("0001TP_008550", "Seq05VD_f00000")  # test
    for frame in frames:
        picture(root / f"701_StillsRaw_full/{frame}.png")
        colour_image(root / f"LabeledApproved_full/{frame}_L.png", pixels)


def densepass(root: Path) -> None:
    for number in (1, 12):
        picture(root / f"leftImg8bit/val/cs/{number}_.png")
        index_image(root / f"gtFine/val/cs/{number}_labelTrainIds.png", values([*range(19), 255]))
        picture(root / f"leftImg8bit/train/Amsterdam/{number}.png")


def synpass(root: Path) -> None:
    for weather in ("cloud", "fog", "rain", "sun"):
        for split in ("train", "val", "test"):
            stem = f"{weather}/{split}/MAP_1_point2/000000"
            picture(root / f"img/{stem}.jpg")
            index_image(root / f"semantic/{stem}_trainID.png", values(range(23)))


def stanford2d3d(root: Path) -> None:
    """Entry i + 1 of the list is of class i; 300 more are chairs, beyond one byte."""
    names = ["<UNK>_0_<UNK>_0_0", *(f"{name}_1_hallway_1_1" for name in STANFORD_NAMES)]
    names += [f"chair_{n}_office_2_5" for n in range(300)]
    (root / "assets").mkdir(parents=True)
    (root / "assets/semantic_labels.json").write_text(json.dumps(names))
    pixels = np.zeros((*IMAGE_HW, 3), np.uint8)
    numbers = values([*range(14), 300])
    pixels[..., 1], pixels[..., 2] = numbers // 256, numbers % 256
    pixels[0] = 0x0D  # missing
    for area in ("1", "2", "3", "4", "5a", "5b", "6"):
        for kind, view in (("data", "frame_0"), ("pano", "frame_equirectangular")):
            stem = f"camera_00d10d86db1e435081a837ced388375f_office_24_{view}_domain"
            picture(root / f"area_{area}/{kind}/rgb/{stem}_rgb.png")
            colour_image(root / f"area_{area}/{kind}/semantic/{stem}_semantic.png", pixels)


ENDOVIS_FOLDERS = {
    "1": [
        *("Left_Prograsp_Forceps_labels", "Maryland_Bipolar_Forceps_labels"),
        *("Other_labels", "Right_Prograsp_Forceps_labels"),
    ],
    "6": [
        *("Left_Large_Needle_Driver_labels", "Monopolar_Curved_Scissors_labels"),
        *("Prograsp_Forceps", "Right_Large_Needle_Driver_labels"),
    ],
    "8": ["Left_Grasping_Retractor_labels", "Right_Vessel_Sealer"],
}
ENDOVIS_TYPES = {"1": [2, 1, 7, 2], "6": [3, 6, 2, 3], "8": [5, 4]}


def endovis17(root: Path) -> None:
    """Masks of one sequence are beside one another, in bands of 100 columns from column 320 on."""
    for sequence, folders in ENDOVIS_FOLDERS.items():
        base = root / f"instrument_dataset_{sequence}"
        picture(base / "left_frames/frame000.png", (1080, 1920))
        for number, folder in enumerate(folders):
            mask = np.zeros((1080, 1920))
            mask[28:1052, 320 + 100 * number : 400 + 100 * number] = 10 * (1 + number % 3)
            index_image(base / f"ground_truth/{folder}/frame000.png", mask)


def endovis18(root: Path) -> None:
    for split, sequences in (("train", (1, 3)), ("val", (2, 15))):
        for sequence in sequences:
            picture(root / f"{split}/images/seq{sequence}_frame000.png")
            index_image(root / f"{split}/annotations/seq{sequence}_frame000.png", values(range(8)))


def endovis18_flat(root: Path) -> None:
    for sequence in (1, 3, 2, 15):
        picture(root / f"img/seq_{sequence}_frame000.png")
        index_image(root / f"type_lbl/seq_{sequence}_frame000.png", values(range(8)))


# Data set, what writes it, images of each split.
OFFICIAL: dict[str, tuple[str, Callable[[Path], None], dict[str, int]]] = {
    "cityscapes": ("cityscapes", cityscapes, {"train": 2, "val": 2, "test": 2}),
    "gta5": ("gta5", gta5, {"all": 2}),
    "synthia": ("synthia", synthia, {"all": 2}),
    "cross-city": ("cross-city", cross_city, {"Rome-train": 2, "Rio-test": 2, "Tokyo-test": 2}),
    "kitti": ("kitti", kitti, {"training": 2, "testing": 2}),
    "acdc": ("acdc", acdc, {"train": 4, "val": 4, "test": 4, "night-val": 1, "fog-test": 1}),
    "bdd100k": ("bdd100k", bdd100k, {"train": 1, "val": 1, "test": 1}),
    "bdd100k-before": ("bdd100k", bdd100k_before, {"train": 1, "val": 1, "test": 1}),
    "mapillary": ("mapillary", mapillary, {"training": 1, "validation": 1, "testing": 1}),
    "mapillary-v2": ("mapillary", mapillary_v2, {"training": 1, "validation": 1, "testing": 1}),
    "idd": ("idd", idd, {"train": 2, "val": 2, "test": 2}),
    "camvid": ("camvid", camvid, {"train": 2, "val": 2, "test": 2}),
    "camvid32": ("camvid32", camvid32, {"train": 3, "val": 2, "test": 2}),
    "densepass": ("densepass", densepass, {"train": 2, "val": 2}),
    "synpass": ("synpass", synpass, {"train": 4, "val": 4, "test": 4}),
    "stanford2d3d": (
        "stanford2d3d",
        stanford2d3d,
        {"pinhole-train": 5, "pinhole-val": 2, "panorama-train": 5, "panorama-val": 2},
    ),
    "endovis17": ("endovis17", endovis17, {"all": 3}),
    "endovis18": ("endovis18", endovis18, {"train": 2, "val": 2}),
    "endovis18-flat": ("endovis18", endovis18_flat, {"train": 2, "val": 2}),
}
