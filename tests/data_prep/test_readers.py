"""The fifteen published datasets in miniature: original archives and layouts with their quirks, served on loopback,
fetched, unpacked, verified, split and sampled by the verbs that the workflow calls."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.io import savemat

from data_prep import catalog, fetch, instructions, splits
from data_prep.__main__ import main
from tests.data_prep.server import Fault, Server, archive, image, miniature, serving


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    with serving() as found:
        yield found


def run(verb: str, name: str, data: Path, *words: str) -> int:
    if verb == "split":
        words = (*words, "--output", str(data / name / "split.json"))
    return main([verb, name, "--data", str(data), *words])


def prepared(name: str, data: Path) -> splits.Split:
    """Download and split; returns the split."""
    assert run("download", name, data) == 0
    assert run("split", name, data) == 0
    return splits.read_split(data / name / "split.json")


def drawn(path: Path, shots: int = 1) -> list[list]:
    """What `sample` prints for train."""
    import contextlib

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["sample", "--split", str(path), "--shots", str(shots), "--seed", "1"]) == 0
    return json.loads(out.getvalue())["train"]


def divided(classes: list[tuple[list[str], str]]) -> dict[str, list]:
    """A split of [(paths, class name)]: per class the last image is test, the one before val, the rest train."""
    split: dict[str, list] = {part: [] for part in splits.PARTS}
    for label, (paths, name) in enumerate(classes):
        for place, path in enumerate(paths):
            part = {len(paths) - 1: "test", len(paths) - 2: "val"}.get(place, "train")
            split[part].append([path, label, name])
    return split


def paths_of(split: dict[str, list]) -> dict[str, bytes]:
    return {path: image(path) for part in splits.PARTS for path, _, _ in split[part]}


SKETCHED = {
    # Folder names, capitals first; the split renames four classes and leaves two folders out.
    "caltech101": [
        ([f"Faces/image_{number:04d}.jpg" for number in range(1, 5)], "face"),
        ([f"Leopards/image_{number:04d}.jpg" for number in range(1, 5)], "leopard"),
        ([f"accordion/image_{number:04d}.jpg" for number in range(1, 5)], "accordion"),
        ([f"airplanes/image_{number:04d}.jpg" for number in range(1, 5)], "airplane"),
    ],
    "oxford_pets": [
        ([f"Abyssinian_{number}.jpg" for number in (122, 14, 9, 201)], "abyssinian"),
        ([f"american_bulldog_{number}.jpg" for number in (1, 10, 2)], "american_bulldog"),
    ],
    "food101": [
        ([f"apple_pie/{number}.jpg" for number in (1005649, 1014775, 1026328)], "apple_pie"),
        ([f"waffles/{number}.jpg" for number in (9, 10, 11)], "waffles"),
    ],
    "dtd": [([f"{name}/{name}_000{number}.jpg" for number in range(1, 5)], name) for name in ("banded", "zigzagged")],
    "eurosat": [
        ([f"{folder}/{folder}_{number}.jpg" for number in (1, 2, 10)], name)
        for folder, name in (
            ("AnnualCrop", "Annual Crop Land"),
            ("HerbaceousVegetation", "Herbaceous Vegetation Land"),
            ("SeaLake", "Sea or Lake"),
        )
    ],
}
OTHERS = {
    "caltech101": {
        "caltech-101/Annotations.tar": b"annotations",
        "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"mac",
    },
    "oxford_pets": {},
    "food101": {"food-101/meta/train.json": b"{}", "food-101/license_agreement.txt": b"terms"},
    "dtd": {"dtd/labels/train1.txt": b"", "dtd/imdb/imdb.mat": b""},
    "eurosat": {},
}


@pytest.mark.parametrize("name", SKETCHED)
def test_a_set_with_coops_split_file(server: Server, tmp_path, monkeypatch, capsys, name: str) -> None:
    split = divided(SKETCHED[name])
    images = paths_of(split)
    if name == "caltech101":
        images |= {f"{folder}/image_0001.jpg": b"ignored" for folder in ("BACKGROUND_Google", "Faces_easy")}
    inside = catalog.DATASETS[name].files[-1].keep[0][0]
    entry = miniature(server, name, {inside: images}, split, others=OTHERS[name])
    monkeypatch.setitem(catalog.DATASETS, name, entry)
    found = prepared(name, tmp_path)
    assert found == {part: [tuple(item) for item in split[part]] for part in splits.PARTS}
    # CoOp's file to the byte, so that its hash in every record is CoOp's.
    assert (tmp_path / name / "split.json").read_bytes() == (tmp_path / name / str(entry.split_file)).read_bytes()
    verified = json.loads((tmp_path / name / "verified.json").read_text())
    assert verified["images"] == sum(map(len, split.values())) and verified["digest"] == "bytes"
    assert not (tmp_path / name / "downloads").exists() and "paths" not in verified
    first = [path for path, _, _ in drawn(tmp_path / name / "split.json")]
    assert len(first) == entry.classes and set(first) <= {path for path, _, _ in split["train"]}
    # Nothing is fetched that is there; a lost marker is made again from what is there.
    asked = len(server.requests)
    (tmp_path / name / "verified.json").unlink()
    assert run("download", name, tmp_path) == 0 and len(server.requests) == asked
    assert json.loads((tmp_path / name / "verified.json").read_text()) == verified


def flowers(server: Server, official: list[int]) -> catalog.Dataset:
    paths = [f"image_{number:05d}.jpg" for number in range(1, 7)]
    split = {
        "train": [[paths[0], 1, "passion flower"], [paths[1], 0, "pink primrose"]],
        "val": [[paths[2], 1, "passion flower"], [paths[3], 0, "pink primrose"]],
        "test": [[paths[4], 1, "passion flower"], [paths[5], 0, "pink primrose"]],
    }
    out = io.BytesIO()
    savemat(out, {"labels": [official]})
    return miniature(server, "oxford_flowers", {"jpg": paths_of(split)}, split, {"imagelabels.mat": out.getvalue()})


def test_flowers_labels_are_the_official_ones_less_one(server, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(catalog.DATASETS, "oxford_flowers", flowers(server, [2, 1, 2, 1, 2, 1]))
    split = prepared("oxford_flowers", tmp_path / "good")
    assert split["train"] == [("image_00001.jpg", 1, "passion flower"), ("image_00002.jpg", 0, "pink primrose")]
    assert [label for _, label, _ in drawn(tmp_path / "good/oxford_flowers/split.json")] == [1, 0]  # not label order
    monkeypatch.setitem(catalog.DATASETS, "oxford_flowers", replace(flowers(server, [2, 1, 2, 1, 2, 2])))
    capsys.readouterr()
    # The served image archive is another one now, too; the labels are what the check is about.
    assert run("download", "oxford_flowers", tmp_path / "bad") == 2
    assert "image_00006.jpg has label 0 in the split" in capsys.readouterr().err
    assert not (tmp_path / "bad/oxford_flowers/verified.json").exists()


CARS = [
    (["cars_train/00002.jpg", "cars_train/00003.jpg", "cars_test/00001.jpg"], "2012 Ram C/V Cargo Van Minivan"),
    (["cars_train/00001.jpg", "cars_train/00004.jpg", "cars_test/00002.jpg"], "2009 Bugatti Veyron 16.4 Coupe"),
]
SUN = [
    ([f"a/abbey/sun_a{number}.jpg" for number in "bcd"], "abbey"),
    ([f"a/apartment_building/outdoor/sun_a{number}.jpg" for number in "bcd"], "outdoor apartment_building"),
]
UCF = [
    ([f"Apply_Eye_Makeup/v_ApplyEyeMakeup_g0{number}_c01.jpg" for number in range(3)], "Apply_Eye_Makeup"),
    ([f"Handstand_Pushups/v_HandStandPushups_g0{number}_c01.jpg" for number in range(3)], "Handstand_Pushups"),
]


@pytest.mark.parametrize(("name", "classes"), [("stanford_cars", CARS), ("sun397", SUN), ("ucf101", UCF)])
def test_a_set_placed_by_hand(server, tmp_path, monkeypatch, capsys, name: str, classes: list) -> None:
    """A page first; then archives as their user placed them, or folders; both verified path by path."""
    split = divided(classes)
    images = paths_of(split)
    real = catalog.DATASETS[name]
    trees = {}
    for file in real.files:
        for inside, place in file.keep:
            below = f"{place}/" if real.image_folder == "." else ""
            trees[inside] = {path.removeprefix(below): one for path, one in images.items() if path.startswith(below)}
    entry = miniature(server, name, trees, split)
    monkeypatch.setitem(catalog.DATASETS, name, entry)

    assert run("download", name, tmp_path) == 2
    error = capsys.readouterr().err
    assert error == f"error: {instructions.page(name, tmp_path / name)}\n" and error.count("\n") > 8
    assert server.requests == []

    for file in entry.files:  # as archives
        if file.keep:
            content = archive(file, {inside: trees[inside] for inside, _ in file.keep}, {})
            (tmp_path / name / file.name).write_bytes(content)
    found = prepared(name, tmp_path)
    assert {part: [list(item) for item in found[part]] for part in splits.PARTS} == split
    kept = [file.name for file in entry.files if file.keep]
    assert all((tmp_path / name / one).exists() for one in kept)  # the user's archives stay

    by_folder = tmp_path / "folders"  # as folders
    for path, content in images.items():
        place = by_folder / name / entry.image_folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    lost = by_folder / name / entry.image_folder / classes[1][0][0]
    lost.rename(lost.with_name(lost.name.upper()))
    capsys.readouterr()
    assert run("download", name, by_folder) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"1 of {len(images)} images" in error and "spelt differently" in error
    assert not (by_folder / name / "verified.json").exists()
    lost.with_name(lost.name.upper()).rename(lost)
    lost.write_bytes(b"")
    assert run("download", name, by_folder) == 2
    assert "is empty" in capsys.readouterr().err
    lost.write_bytes(images[classes[1][0][0]])
    assert prepared(name, by_folder) == found
    same = [json.loads((data / name / "verified.json").read_text())["sha256"] for data in (tmp_path, by_folder)]
    assert same[0] == same[1]


def test_folder_and_file_that_differ_in_case_are_told_apart(tmp_path) -> None:
    from data_prep.verify import Listing

    (tmp_path / "HandStand_Pushups").mkdir()
    (tmp_path / "HandStand_Pushups" / "v.jpg").write_bytes(b"x")
    listing = Listing(tmp_path)
    assert not listing.holds("Handstand_Pushups/v.jpg") and listing.holds("HandStand_Pushups/v.jpg")
    assert "'HandStand_Pushups' is there" in listing.hint("Handstand_Pushups/v.jpg")


LISTS = {
    "variants.txt": "707-320\nA340-300\nF-16A/B\nMD-11\n",
    "train": "1025794 707-320\n1340192 A340-300\n0056978 F-16A/B\n0034309 MD-11\n",
    "val": "1\t707-320\n",
    "test": "0817494 F-16A/B\n2 Cessna 172\n",
}


def aircraft(server: Server, lists: dict[str, str], sizes: tuple[int, int, int]) -> catalog.Dataset:
    prefix = "fgvc-aircraft-2013b/data/"
    texts = {f"{prefix}images_variant_{part}.txt": {"": lists[part].encode()} for part in splits.PARTS}
    names = {line.split(" ")[0] for part in splits.PARTS for line in lists[part].split("\n") if line}
    trees = texts | {f"{prefix}variants.txt": {"": lists["variants.txt"].encode()}}
    trees[f"{prefix}images"] = {f"{name}.jpg": image(name) for name in names}
    others = {f"{prefix}images_box.txt": b"", "fgvc-aircraft-2013b/README.html": b"", f"{prefix}families.txt": b""}
    return miniature(
        server, "fgvc_aircraft", trees, others=others, sizes=sizes, classes=lists["variants.txt"].count("\n")
    )


def test_aircraft_from_its_official_lists(server, tmp_path, monkeypatch, capsys) -> None:
    lists = LISTS | {"variants.txt": "707-320\nCessna 172\nF-16A/B\n"}
    lists |= {"train": "0034309 F-16A/B\n1025794 707-320\n7 Cessna 172\n", "val": "8 Cessna 172\n"}
    lists |= {"test": "0817494 F-16A/B\n9 Cessna 172\n"}
    monkeypatch.setitem(catalog.DATASETS, "fgvc_aircraft", aircraft(server, lists, (3, 1, 2)))
    split = prepared("fgvc_aircraft", tmp_path)
    assert split["train"] == [("0034309.jpg", 2, "F-16A/B"), ("1025794.jpg", 0, "707-320"), ("7.jpg", 1, "Cessna 172")]
    assert split["test"] == [("0817494.jpg", 2, "F-16A/B"), ("9.jpg", 1, "Cessna 172")]
    sample = tmp_path / "sample.json"
    words = ["--split", str(tmp_path / "fgvc_aircraft/split.json"), "--shots", "1", "--seed", "1"]
    assert main(["sample", *words, "--dataset", "fgvc_aircraft", "--output", str(sample)]) == 0
    written = json.loads(sample.read_text())
    assert written["classes"] == ["707-320", "Cessna 172", "F-16A/B"]
    assert written["template"].format(written["classes"][2]) == "a photo of a F-16A/B, a type of aircraft."


@pytest.mark.parametrize(
    ("lists", "sizes", "words"),
    [
        (LISTS, (4, 1, 2), "images_variant_val.txt: line 1: unknown variant"),
        (LISTS | {"val": "1 707-32\n"}, (4, 1, 2), "line 1: unknown variant '707-32'; did you mean '707-320'?"),
        (LISTS | {"val": "1 MD-11\n", "test": "2 MD-11\n"}, (3334, 3333, 3333), "has (4, 1, 1) train, val, test"),
    ],
)
def test_altered_lists_of_aircraft_are_refused(server, tmp_path, monkeypatch, capsys, lists, sizes, words) -> None:
    monkeypatch.setitem(catalog.DATASETS, "fgvc_aircraft", aircraft(server, lists, sizes))
    assert run("download", "fgvc_aircraft", tmp_path) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "fgvc_aircraft/verified.json").exists()


WNIDS = [f"n{number:08d}" for number in (1440764, 1443537, 3773504, 4008634, 4355933)] + [
    f"n{number:08d}" for number in range(5000000, 5000007)
]
NAMES = ["tench", "goldfish", "missile", "missile", "sunglasses"] + [f"thing {number}" for number in range(7)]
CLASSNAMES = "".join(f"{wnid} {name}\n" for wnid, name in zip(WNIDS, NAMES, strict=True)).encode()


def write(folder: Path, trees: dict[str, list[str]]) -> None:
    for below, names in trees.items():
        (folder / below).mkdir(parents=True)
        for name in names:
            (folder / below / name).write_bytes(image(f"{below}/{name}"))


def test_imagenet_from_its_folders(server, tmp_path, monkeypatch, capsys) -> None:
    """Labels by wnid, two classes of one name, sorted files, no validation images, and the page says what CoOp does."""
    small = {"classnames.txt": CLASSNAMES}
    entry = miniature(server, "imagenet", {}, small=small, sizes=(12, 0, 4), classes=4)
    monkeypatch.setitem(catalog.DATASETS, "imagenet", entry)
    assert run("download", "imagenet", tmp_path) == 2
    page = capsys.readouterr().err
    assert "ILSVRC2012_img_train.tar" in page and "cannot be reproduced" in page and server.requests == []
    images = tmp_path / "imagenet" / "images"
    for label, wnid in enumerate(WNIDS[:4]):
        numbers = (10, 9, 1)
        write(images, {f"train/{wnid}": [f"{wnid}_{number}.JPEG" for number in numbers]})
        write(images, {f"val/{wnid}": [f"ILSVRC2012_val_0000000{label}.JPEG"]})
    (images / "train" / ".DS_Store").write_bytes(b"x")
    (images / f"train/{WNIDS[0]}/notes.txt").write_bytes(b"x")
    split = prepared("imagenet", tmp_path)
    assert [path for path, _, _ in split["train"][:3]] == [
        f"train/{WNIDS[0]}/{WNIDS[0]}_{number}.JPEG" for number in (1, 10, 9)
    ]
    assert split["val"] == [] and split["test"][3] == (f"val/{WNIDS[3]}/ILSVRC2012_val_00000003.JPEG", 3, "missile")
    assert splits.class_names(split, tmp_path) == ["tench", "goldfish", "missile", "missile"]
    sample = drawn(tmp_path / "imagenet/split.json", 2)
    assert [label for _, label, _ in sample] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert "cannot be reproduced" in catalog.DATASETS["imagenet"].note
    both = splits.few_shot(split, 2, 1)
    assert [item[1] for item in both["val"]] == [0, 1, 2, 3]  # one left of three, and never a test image
    assert {item[0] for item in both["val"]} == {item[0] for item in split["train"]} - {
        item[0] for item in both["train"]
    }


def shift(server: Server, name: str, folders: dict[str, list[str]], classes: int) -> catalog.Dataset:
    tree = {f"{folder}/{one}": image(f"{folder}/{one}") for folder, names in folders.items() for one in names}
    inside = catalog.DATASETS[name].files[-1].keep[0][0]
    if name in ("imagenet_a", "imagenet_r"):
        tree["README.txt"] = b"read me"
    images = sum(map(len, folders.values()))
    small = {"classnames.txt": CLASSNAMES}
    return miniature(server, name, {inside: tree}, small=small, sizes=(0, 0, images), classes=classes)


@pytest.mark.parametrize("name", ["imagenet_sketch", "imagenet_a", "imagenet_r"])
def test_shifts_with_wnid_folders(server, tmp_path, monkeypatch, capsys, name: str) -> None:
    """The label is the rank among the folders that are there; a README beside them is no class; blanks in names."""
    folders = {WNIDS[4]: ["b 0.5.jpg", "a.JPEG"], WNIDS[1]: ["c.jpg"], WNIDS[11]: ["d.jpg"]}
    monkeypatch.setitem(catalog.DATASETS, name, shift(server, name, folders, 3))
    split = prepared(name, tmp_path)
    assert split == {
        "train": [],
        "val": [],
        "test": [
            (f"{WNIDS[1]}/c.jpg", 0, "goldfish"),
            (f"{WNIDS[4]}/a.JPEG", 1, "sunglasses"),
            (f"{WNIDS[4]}/b 0.5.jpg", 1, "sunglasses"),
            (f"{WNIDS[11]}/d.jpg", 2, "thing 6"),
        ],
    }
    assert main(["sample", "--split", str(tmp_path / name / "split.json"), "--shots", "1", "--seed", "1"]) == 2
    assert "no training images" in capsys.readouterr().err


def test_v2_folders_are_numbers_not_words(server, tmp_path, monkeypatch, capsys) -> None:
    folders = {str(number): [f"{number}x.jpeg"] for number in range(12)}
    monkeypatch.setitem(catalog.DATASETS, "imagenet_v2", shift(server, "imagenet_v2", folders, 12))
    split = prepared("imagenet_v2", tmp_path)
    assert [label for _, label, _ in split["test"]] == list(range(12))
    assert split["test"][2] == ("2/2x.jpeg", 2, "missile") and split["test"][10] == ("10/10x.jpeg", 10, "thing 5")
    early = {wnid: ["x.jpeg"] for wnid in WNIDS}
    monkeypatch.setitem(catalog.DATASETS, "imagenet_v2", shift(server, "imagenet_v2", early, 12))
    capsys.readouterr()
    assert run("download", "imagenet_v2", tmp_path / "early") == 2
    assert "class numbers 0 to 11" in capsys.readouterr().err


def test_other_class_names_are_refused(server, tmp_path, monkeypatch, capsys) -> None:
    """A classnames.txt of raw WordNet lemmas has the same wnids and other names; only the checksum tells."""
    entry = shift(server, "imagenet_a", {WNIDS[0]: ["a.jpg"]}, 1)
    monkeypatch.setitem(catalog.DATASETS, "imagenet_a", entry)
    (tmp_path / "imagenet_a").mkdir()
    (tmp_path / "imagenet_a/classnames.txt").write_bytes(CLASSNAMES.replace(b"tench", b"Tinca"))
    assert run("download", "imagenet_a", tmp_path) == 2
    assert f"expected {entry.files[0].sha256}" in capsys.readouterr().err


def test_an_interrupted_dataset_goes_on_and_never_looks_whole(server, tmp_path, monkeypatch, capsys) -> None:
    split = divided(SKETCHED["dtd"])
    entry = miniature(server, "dtd", {"dtd/images": paths_of(split)}, split)
    monkeypatch.setitem(catalog.DATASETS, "dtd", entry)
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    content = server.files["dtd/dtd-r1.0.1.tar.gz"]
    server.faults["dtd/dtd-r1.0.1.tar.gz"] = [Fault(cut=100), Fault(cut=0)]
    assert run("download", "dtd", tmp_path) == 2
    error = capsys.readouterr().err
    assert "100 bytes have arrived and are kept" in error and error.strip().count("\n") == 0
    folder = tmp_path / "dtd"
    assert sorted(path.name for path in folder.iterdir()) == ["downloads", "split_zhou_DescribableTextures.json"]
    assert run("split", "dtd", tmp_path) == 0  # the split alone needs no images
    assert run("download", "dtd", tmp_path) == 0
    assert server.sent("dtd/dtd-r1.0.1.tar.gz") == len(content)
    assert sorted(path.name for path in folder.iterdir()) == [
        "images",
        "split.json",
        "split_zhou_DescribableTextures.json",
        "verified.json",
    ]


def test_an_archive_without_all_images_of_the_split_is_not_verified(server, tmp_path, monkeypatch, capsys) -> None:
    split = divided(SKETCHED["eurosat"])
    images = paths_of(split)
    images.pop("SeaLake/SeaLake_10.jpg")
    monkeypatch.setitem(catalog.DATASETS, "eurosat", miniature(server, "eurosat", {"2750": images}, split))
    assert run("download", "eurosat", tmp_path) == 2
    error = capsys.readouterr().err
    assert "1 of 9 images of its split are missing" in error and "SeaLake/SeaLake_10.jpg" in error
    assert not (tmp_path / "eurosat/verified.json").exists()


def test_the_catalog_has_torchvisions_addresses_and_checksums() -> None:
    import inspect

    import rmt.torchvision_import  # noqa: F401

    from torchvision import datasets as published  # isort: skip

    theirs = {
        "caltech101": published.Caltech101,
        "oxford_pets": published.OxfordIIITPet,
        "oxford_flowers": published.Flowers102,
        "food101": published.Food101,
        "dtd": published.DTD,
        "eurosat": published.EuroSAT,
        "fgvc_aircraft": published.FGVCAircraft,
    }
    for name, cls in theirs.items():
        source = inspect.getsource(cls)
        for file in catalog.DATASETS[name].files:
            if file.keep:
                assert file.addresses[0] in source or file.name in source, name
                assert name == "fgvc_aircraft" or str(file.md5) in source, name


def test_the_catalog_is_complete() -> None:
    published = {name: entry for name, entry in catalog.DATASETS.items() if entry.source != "generated"}
    assert len(published) == 15 and len(catalog.DATASETS) == 25
    by_hand = {name for name, entry in published.items() if entry.source == "by_hand"}
    assert by_hand == {"imagenet", "stanford_cars", "sun397", "ucf101"}
    for name, entry in published.items():
        assert entry.template.count("{}") == 1 and entry.licence and entry.citation and entry.coop_folder, name
        assert entry.split_file or entry.reader, name
        for file in entry.files:
            assert file.checksum or file.name == "UCF-101-midframes.zip", file.name
            assert file.addresses or entry.source == "by_hand"
            if file.name == entry.split_file:
                assert any(one.startswith("drive:") for one in file.addresses) and len(file.addresses) == 3
    assert sum(sum(entry.split_sizes or ()) for entry in published.values()) == 1_666_181


def test_list_shows_what_is_there(tmp_path, capsys) -> None:
    (tmp_path / "dtd" / "downloads").mkdir(parents=True)
    (tmp_path / "eurosat").mkdir()
    (tmp_path / "eurosat" / "verified.json").write_text("{}")
    assert main(["list", "--data", str(tmp_path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert len(set(rows) & set(catalog.DATASETS)) == 25
    assert "verified" in rows["eurosat"] and "13500 / 5400 / 8100" in rows["eurosat"]
    assert "incomplete: will be downloaded, 626 MB" in rows["dtd"]
    assert "missing: will be downloaded, 5.0 GB" in rows["food101"]
    assert "missing: by hand" in rows["sun397"] and "39.1 GB" in rows["sun397"]
    assert "missing: will be drawn" in rows["digits"]
