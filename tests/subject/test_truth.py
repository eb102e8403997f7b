"""Class names and true classes, from files as people write them."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from reportgen.errors import LabelsError
from reportgen.subject import truth
from reportgen.subject.labels import read_labels
from reportgen.subject.truth import Truth, truth_from_folders
from reportgen.subject.truth_table import truth_from_csv

CLASSES = ("tench, Tinca tinca", "great white shark", "hen", "crane, bird", "crane, machine", "moped")


def labels(tmp_path: Path, data: str | bytes) -> tuple[str, ...]:
    file = tmp_path / "labels"
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_labels(file)


# labels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        "cat\ndog\nbird",
        "cat\ndog\nbird\n\n  \n",
        "cat\r\ndog\r\nbird\r\n",
        "cat\rdog\rbird",
        "\ufeffcat\ndog\nbird\n",
        "  cat \ndog\t\n bird",
        "cat\ndog\nbird".encode("utf-16"),
        '["cat", "dog", "bird"]',
        '\ufeff["cat", "dog", "bird"]',
        '{"0": "cat", "1": "dog", "2": "bird"}',
        '{"2": "bird", "0": "cat", "1": "dog"}',
        '{"cat": 0, "bird": 2, "dog": 1}',
        '{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "bird"]}',
        "{0: 'cat',\n 1: 'dog',\n 2: 'bird'}",
        "n00000001 cat\nn00000002 dog\nn00000003 bird\n",
        "0,cat\n1,dog\n2,bird\n",
        "index,name\r\n2,bird\r\n0,cat\r\n1,dog\r\n",
        "name;class_id\ncat;0\ndog;1\nbird;2",
        "0\tn00000001\tcat\n1\tn00000002\tdog\n2\tn00000003\tbird",
        '0,"cat"\n1,"dog"\n2,"bird"',
        "0 cat\n1 dog\n2 bird\n",
        "0: cat\n1: dog\n2: bird\n",
        '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "bird"}}',
    ],
)
def test_labels_however_they_are_written(tmp_path: Path, data: str | bytes) -> None:
    assert labels(tmp_path, data) == ("cat", "dog", "bird")


def test_labels_in_tables(tmp_path: Path) -> None:
    def table(data: str) -> tuple[str, ...]:
        (tmp_path / "labels.csv").write_text(data)
        return read_labels(tmp_path / "labels.csv")

    assert table('index,name\n0,"tench, Tinca tinca"\n1,"a ""b"""\n') == ("tench, Tinca tinca", 'a "b"')
    assert table("label\ncat\ndog\n") == ("cat", "dog")
    assert table("cat\ndog\n") == ("cat", "dog")
    with pytest.raises(LabelsError, match=r"'labels\.csv' does not number the classes from 0"):
        table("1,cat\n2,dog\n")


def test_numbers_that_belong_to_names(tmp_path: Path) -> None:
    assert labels(tmp_path, "101 dalmatians\n7 samurai") == ("101 dalmatians", "7 samurai")
    assert labels(tmp_path, "7\n8\n9") == ("7", "8", "9")
    assert labels(tmp_path, "label\nname") == ("label", "name")


def test_labels_keep_what_belongs_to_them(tmp_path: Path) -> None:
    assert labels(tmp_path, "n01440764 tench, Tinca tinca\nn01443537 goldfish") == ("tench, Tinca tinca", "goldfish")
    assert labels(tmp_path, "n01440764\nn01443537") == ("n01440764", "n01443537")
    assert labels(tmp_path, "猫\nchien à poil\nn/a\n<b>") == ("猫", "chien à poil", "n/a", "<b>")
    assert labels(tmp_path, "a\u2028b\nc\x1b[31m") == ("a b", "c\\x1b[31m")
    assert labels(tmp_path, '{"zero": 0, "1": 1}') == ("zero", "1")
    assert labels(tmp_path, "[0, 1, 2.5]") == ("0", "1", "2.5")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "no label"),
        ("\n\n", "no label"),
        ("[]", "no label"),
        ("{}", "no label"),
        ("cat\n\ndog", "label 1 of 'labels' is empty"),
        ('["cat", ""]', "label 1 of 'labels' is empty"),
        (b"\xff\xff\xff", "not UTF-8"),
        ("[1, 2", "not JSON"),
        ("[" * 5000, "not JSON"),
        ('{"0": "cat", "2": "dog"}', "without a gap"),
        ('{"1": "cat", "2": "dog"}', "without a gap"),
        ('{"cat": 0, "dog": 0}', "without a gap"),
        ('{"cat": "0"}', "no class numbers"),
        ('{"²": "a"}', "no class numbers"),
        ('[null, "a"]', "no name: null"),
        ('[{"name": "cat"}]', "no name"),
        ('{"0": true}', "no name"),
        ('{"' + "9" * 5000 + '": "a"}', "no class numbers"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path: Path, data: str | bytes, words: str) -> None:
    with pytest.raises(LabelsError, match=words):
        labels(tmp_path, data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_labels_from_nowhere(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "gone", tmp_path, tmp_path / "pipe"):
        with pytest.raises(LabelsError, match="cannot read"):
            read_labels(file)
        with pytest.raises(LabelsError, match="cannot read"):
            truth_from_csv(file, ["a.png"], CLASSES)


# folders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("moped", 5),
        ("Moped", 5),
        ("great white shark", 1),
        ("great_white_shark", 1),
        ("Great-White  Shark", 1),
        ("val/hen", 2),
        ("hen/more/deeper", 2),
        ("tench, Tinca tinca", 0),
        ("tench", 0),
        ("tinca_tinca", 0),
        ("crane, machine", 4),
        ("bird", 3),
        ("crane", None),
        ("henhouse", None),
        ("hen/moped", None),
        ("2", None),
        ("other", None),
    ],
)
def test_folders(folder: str, label: int | None) -> None:
    image = f"{folder}/1.jpg"
    found = truth_from_folders([image, "hen/0.jpg"], CLASSES)
    assert found.truth.pop("hen/0.jpg") == Truth(2)
    assert found.truth == ({} if label is None else {image: Truth(label)})
    assert found.unmatched == ((folder,) if label is None else ())
    assert (found.words is not None) == (label is None)


def test_names_that_two_classes_have_mean_neither() -> None:
    assert truth_from_folders(["crane/1.jpg"], ("crane", "Crane")).truth == {}
    # a whole name beats another's synonym
    assert truth_from_folders(["crane/1.jpg"], ("crane", "heron, crane")).truth == {"crane/1.jpg": Truth(0)}


def test_accents_count_however_they_are_encoded() -> None:
    folder = unicodedata.normalize("NFD", "Bär")
    assert truth_from_folders([f"{folder}/1.jpg"], ("bär", "x")).truth == {f"{folder}/1.jpg": Truth(0)}


def test_numbers() -> None:
    assert truth_from_folders(["0/a.jpg", "x/05/b.jpg"], CLASSES).truth == {
        "0/a.jpg": Truth(0),
        "x/05/b.jpg": Truth(5),
    }
    assert truth_from_folders(["0/a.jpg", "1/b.jpg"], ("0", "1")).truth == {"0/a.jpg": Truth(0), "1/b.jpg": Truth(1)}
    # names beat places: these classes are called by other numbers
    assert truth_from_folders(["1/a.jpg"], ("7", "1", "0")).truth == {"1/a.jpg": Truth(1)}
    assert truth_from_folders(["0/a.jpg"], ("7", "1", "0")).truth == {"0/a.jpg": Truth(2)}
    # 2019 is a year, six classes or not; so is a number beside a word, or beside loose images
    for images in (["2019/a.jpg", "1/a.jpg"], ["1/a.jpg", "new/a.jpg"], ["1/a.jpg", "b.jpg"]):
        assert truth_from_folders(images, CLASSES).truth == {}
    assert truth_from_folders(["1/a.jpg"], None).truth == {}
    assert truth_from_folders(["²/a.jpg"], CLASSES).truth == {}


def test_no_folders_no_words() -> None:
    found = truth_from_folders(["a.jpg", "b.jpg"], CLASSES)
    assert (found.truth, found.words, found.unmatched) == ({}, None, ())
    many = truth_from_folders([f"odd{number}/a.jpg" for number in range(9)], CLASSES)
    assert many.words == "9 folders are called like no class, or like several: odd0, odd1, odd2, …"


def test_wordnet_identifiers() -> None:
    pytest.importorskip("timm")
    models = pytest.importorskip("torchvision.models")
    imagenet = tuple(models.ResNet50_Weights.DEFAULT.meta["categories"])
    order, _words = truth._wordnet()
    images = [f"val/{identifier}/1.JPEG" for identifier in order]
    found = truth_from_folders(images, imagenet)
    assert [found.truth[image].label for image in images] == list(range(1000))
    # some of the classes, in another order: by name
    some = ("goldfish, Carassius auratus", "tench", "something else")
    found = truth_from_folders(["n01440764/1.jpg", "n01443537/1.jpg", "n01484850/1.jpg"], some)
    assert found.truth == {"n01440764/1.jpg": Truth(1), "n01443537/1.jpg": Truth(0)}
    assert found.unmatched == ("n01484850",)
    # classes that are called by their identifiers
    assert truth_from_folders(["n01440764/1.jpg"], ("x", "n01440764")).truth == {"n01440764/1.jpg": Truth(1)}
    # a thousand classes that are others
    assert truth_from_folders(["n01440764/1.jpg"], tuple(f"class {number}" for number in range(1000))).truth == {}


def test_without_timm_identifiers_are_unmatched(monkeypatch: pytest.MonkeyPatch) -> None:
    truth._wordnet.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    try:
        assert truth_from_folders(["n01440764/1.jpg"], ("tench", "x")).unmatched == ("n01440764",)
    finally:
        truth._wordnet.cache_clear()


# tables -------------------------------------------------------------------------------------------------------------

IMAGES = ["cat/1.png", "dog/1.png", "dog/2.png", "odd, name.png", "\\xff.png", "new\\x0aline.png"]


def table(tmp_path: Path, text: str | bytes, **options: Any) -> dict[str, Truth]:
    file = tmp_path / "truth.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return truth_from_csv(file, IMAGES, CLASSES, **options)


@pytest.mark.parametrize(
    "text",
    [
        "image,label\ncat/1.png,hen\n2.png,5\n",
        "image,label\r\ncat/1.png,hen\r\n2.png,5\r\n",
        "\ufeffImage , LABEL\n./cat/1.png, Hen \ndog/2.png,moped",
        "label;image\nhen;cat\\1.png\n5;dog\\2.png",
        "image\tlabel\ncat/1.png\then\n2.png\t5.0",
        "id,image,label\n7,cat/1.png,2\n8,2.png,5\n,,\n",
        "image,label\ncat/1.png,hen\ncat/1.png,hen\n2.png,5\nodd,\n",
        "image,label\ncat/1.png,hen\n2.png,5\n".encode("utf-16"),
    ],
)
def test_tables_however_they_are_written(tmp_path: Path, text: str | bytes) -> None:
    assert table(tmp_path, text) == {"cat/1.png": Truth(2), "dog/2.png": Truth(5)}


def test_groups_slices_and_quotes(tmp_path: Path) -> None:
    made = table(
        tmp_path,
        'image,label,group,slice\n"odd, name.png","tench, Tinca tinca",patient 1,night\n2.png,tinca tinca,,"a ""b"""\n',
    )
    assert made == {"odd, name.png": Truth(0, "patient 1", "night"), "dog/2.png": Truth(0, None, 'a "b"')}


def test_images_may_be_called_as_they_are_shown_or_as_they_are(tmp_path: Path) -> None:
    assert table(tmp_path, 'image,label\n\\xff.png,1\n"new\nline.png",1\n') == {
        "\\xff.png": Truth(1),
        "new\\x0aline.png": Truth(1),
    }


def test_accents_in_tables(tmp_path: Path) -> None:
    file = tmp_path / "truth.csv"
    file.write_text("image,label\nBär.png,hen\n", encoding="utf-8")
    name = unicodedata.normalize("NFD", "Bär.png")
    assert truth_from_csv(file, [name], CLASSES) == {name: Truth(2)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no columns image and label"),
        ("file,label\na,b\n", "no columns image and label; its first line is 'file,label'"),
        ("image,label,label\na,1,2\n", "no columns image and label"),
        ("image,label\n", "names no image"),
        ("image,label\ncat/1.png,whale\n2.png,99\n", r"classes .* line 2: 'whale'; line 3: '99'"),
        ("image,label\ncat/1.png,crane\n", "or that several have: line 2: 'crane'"),
        ("image,label\ncat/1.png,-1\n", "line 2: '-1'"),
        ("image,label\ncat/1.png,tench, Tinca tinca\n", "line 2 .* more fields"),
        ("image,label\n1.png,hen\n", "several are called: line 2: '1.png'"),
        ("image,label\nx.png,hen\ny.png,hen\nz.png,hen\nw.png,hen\n", r"line 4: 'z.png' and 1 more"),
        ("image,label\n2.png,hen\ndog/2.png,moped\n", "two things of one image: line 3: 'dog/2.png'"),
        (b"image,label\n\xff\xfe,1\n", "not UTF-8"),
        ("image,label\n\0,1\n", "no CSV table|not there"),
        ('image,label\n"' + "x" * 200_000 + '",1\n', "no CSV table: line"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(LabelsError, match=words):
        table(tmp_path, text)


# tables of several labels -------------------------------------------------------------------------------------------

SEVERAL = {"cat/1.png": Truth(frozenset({2, 5})), "dog/1.png": Truth(frozenset()), "dog/2.png": Truth(frozenset({0}))}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\ncat/1.png,hen;moped\ndog/1.png,\n2.png,tench\n",
        "image,label\ncat/1.png,Moped | hen|\ndog/1.png,\n2.png,0\n",
        "image,labels\ncat/1.png,5;2;2\ndog/1.png,;\n2.png,tench\n",
        'image;label\ncat/1.png;hen|moped\ndog/1.png;\n2.png;"0"\n',
        'image;label\ncat/1.png;"hen;moped"\ndog/1.png;\n2.png;0\n',
        "image\tlabel\ncat/1.png\then;moped\ndog/1.png\t\n2.png\ttinca tinca\n",
        "image,0,1,2,3,4,5\ncat/1.png,0,0,1,0,0,1\ndog/1.png,0,0,0,0,0,0\n2.png,1,0,0,0,0,0\nodd,,,,,,\n",
        'image,Hen,split,Tench,great_white_shark,"crane, bird","crane, machine",moped\n'
        "cat/1.png,1.0,test,0.0,0.0,0.0,0.0,1.0\ndog/1.png,False,test,false,false,false,false,false\n"
        "2.png,0,train,1,0,0,0,0\n",
    ],
)
def test_several_labels_however_they_are_written(tmp_path: Path, text: str) -> None:
    assert table(tmp_path, text, several=True) == SEVERAL


def test_a_column_of_labels_says_that_there_may_be_none(tmp_path: Path) -> None:
    text = "image,labels\ncat/1.png,hen\ndog/1.png,\n"
    assert table(tmp_path, text, several=True) == {"cat/1.png": Truth(frozenset({2})), "dog/1.png": Truth(frozenset())}
    # where none has several and nothing says that it may, a row without label says nothing
    assert table(tmp_path, text.replace("labels", "label"), several=True) == {"cat/1.png": Truth(2)}


def test_groups_and_slices_of_several_labels(tmp_path: Path) -> None:
    assert table(tmp_path, "image,labels,group,slice\ncat/1.png,hen;0,patient 1,\n", several=True) == {
        "cat/1.png": Truth(frozenset({0, 2}), "patient 1")
    }
    columns = "image,group," + ",".join(str(number) for number in range(6)) + "\ncat/1.png,patient 1,1,0,1,0,0,0\n"
    assert table(tmp_path, columns, several=True) == {"cat/1.png": Truth(frozenset({0, 2}), "patient 1")}


def test_names_that_hold_what_parts_names(tmp_path: Path) -> None:
    file = tmp_path / "truth.csv"
    classes = ("a", "a;b", "b|c", "c", "d;e;f")
    for words, meant in (("a;b", {1}), ("a|b|c", {0, 2}), ("d;e;f;c", {3, 4}), ("c; a ; b|c", {0, 2, 3})):
        file.write_text(f'image,labels\ncat/1.png,"{words}"\n')
        assert truth_from_csv(file, IMAGES, classes, several=True) == {"cat/1.png": Truth(frozenset(meant))}
    file.write_text("image,label\ncat/1.png,a;b\n")
    assert truth_from_csv(file, IMAGES, classes) == {"cat/1.png": Truth(1)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\ncat/1.png,hen;whale\n2.png,cod;ray\n", "does not have, .*: line 2: 'whale'; line 3: 'cod;ray'"),
        ("image,label,labels\ncat/1.png,hen,\n", "but several\nleave one column of labels"),
        ("image,labels\ncat/1.png,hen\ncat/1.png,moped\n", "line 3: 'cat/1.png'\n.*in one row: cat;dog"),
        ("image;label\ncat/1.png;hen;moped\n", "line 2 .* more fields .*\npart the classes of an image by |"),
        ("image,0,1,2,3,5\ncat/1.png,0,0,0,0,0\n", "no column, or several, for 1 of 6 classes: crane, machine"),
        ("image,0,1,2,3,4,5,5\ncat/1.png,0,0,0,0,0,0,0\n", "or several, for 1 of 6 classes: moped"),
        ("image,0,1,2,3,4,5\ncat/1.png,0,0,-1,0,0,\n", "neither 0 nor 1 of a class: line 2: '-1'; line 2: ''"),
        ("image,whale,cod\ncat/1.png,0,1\n", "no columns image and label"),
    ],
)
def test_several_labels_that_do_not_fit(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LabelsError, match=words) as caught:
        table(tmp_path, text, several=True)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\ncat/1.png,hen;moped\n", r"\(line 2: 'hen;moped'\)"),
        ("image,labels\ncat/1.png,hen\n", r"\(column labels\)"),
        ("image,0,1,2,3,4,5\ncat/1.png,0,0,1,0,0,0\n", r"\(a column for each class\)"),
    ],
)
def test_several_labels_for_classes_that_exclude_each_other(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LabelsError, match=words + r".* exclude each other\n--output-kind multilabel"):
        table(tmp_path, text)


def test_the_remedy_names_an_image_as_a_table_should(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="several are called") as raised:
        table(tmp_path, "image,label\nx,hen\n")
    assert raised.value.remedy == "name them relative to the image folder, as 'cat/1.png'"


def test_rows_about_other_images(tmp_path: Path) -> None:
    text = "image,label\ncat/1.png,hen\nleft/out.png,hen\n"
    # what else lay there is not known: the row may be about it
    assert table(tmp_path, text) == {"cat/1.png": Truth(2)}
    assert table(tmp_path, text, others=["left/out.png"]) == {"cat/1.png": Truth(2)}
    with pytest.raises(LabelsError, match=r"images that are not there.*line 3: 'left/out.png'"):
        table(tmp_path, text, others=["left/other.png"])


def test_a_large_table_is_read_in_a_moment(tmp_path: Path) -> None:
    images = [f"{number % 1000}/{number}.jpg" for number in range(50_000)]
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{number}.jpg,hen\n" for number in range(50_000)))
    assert len(truth_from_csv(tmp_path / "t.csv", images, CLASSES)) == 50_000
    assert len(truth_from_folders(images, CLASSES).unmatched) == 1000


def test_labels_written_by_json_come_back(tmp_path: Path) -> None:
    names = ["a", '"><script>alert(1)</script>', "猫", "a,b"]
    assert labels(tmp_path, json.dumps(names)) == tuple(names)
    assert labels(tmp_path, json.dumps(dict(enumerate(names)), ensure_ascii=False)) == tuple(names)
