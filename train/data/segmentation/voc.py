"""The segmentation layout of Pascal VOC."""

import pathlib

from train.data.segmentation.mask_folder import Record

VOC_CLASSES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
VOC_LISTS = ("train", "val", "test")


def find_voc_masks(folder: pathlib.Path, *, instances: bool) -> dict[str, list[Record]]:
    """PATH/ImageSets/Segmentation/PART.txt -> {part: [(image, mask, instances or None), ...]}.

    JPEGImages/NAME.jpg, SegmentationClass/NAME.png and SegmentationObject/NAME.png of the names
    that the lists hold. Only trainval.txt, where that is all: as "train". A test list counts where
    its masks are there (those of 2007; the later ones are kept back).

    Raises FileNotFoundError for a missing folder, list or file.

    Source: Everingham et al. 2010, The Pascal Visual Object Classes Challenge; the development kit.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"voc: there is no folder {folder}")
    lists = folder / "ImageSets" / "Segmentation"
    files = {part: lists / f"{part}.txt" for part in VOC_LISTS}
    if not files["train"].is_file():
        files = {"train": lists / "trainval.txt"}
    if not files["train"].is_file():
        raise FileNotFoundError(
            f"voc: {lists} has neither train.txt nor trainval.txt (PATH is the folder that holds "
            "ImageSets, JPEGImages and SegmentationClass, such as VOCdevkit/VOC2012)"
        )
    names = {part: read_name_list(file) for part, file in files.items() if file.is_file()}
    if "test" in names and not (folder / "SegmentationClass" / f"{names['test'][0]}.png").is_file():
        del names["test"]
    kinds = [("JPEGImages", ".jpg"), ("SegmentationClass", ".png")]
    kinds += [("SegmentationObject", ".png")] if instances else []
    there = {kind: {file.name for file in folder.glob(f"{kind}/*")} for kind, _ in kinds}
    found: dict[str, list[Record]] = {}
    for part, of_part in names.items():
        for name in of_part:
            for kind, ending in kinds:
                if name + ending not in there[kind]:
                    raise FileNotFoundError(
                        f"voc: {files[part].name} lists {name}, but there is no "
                        f"{folder / kind / (name + ending)}"
                    )
        paths = [[str(folder / kind / (name + e)) for kind, e in kinds] for name in of_part]
        found[part] = [(path[0], path[1], path[2] if instances else None) for path in paths]
    return found


def read_name_list(file: pathlib.Path) -> list[str]:
    """The names in a list of an image set, one a line."""
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no list of names, one a line ({error})") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{file} is empty: expected names of images, one a line")
    strange = [n for n in names if "/" in n or "\\" in n or "\0" in n or len(n.split()) > 1]
    if strange:
        raise ValueError(f"{file} holds {strange[0][:80]!r}: expected one name of an image a line")
    return names
