"""Sources: folders, parquet files and single images, their splits, labels and messages."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from zoo.errors import DataError, ImageError
from zoo.sources import Source, classes_of, open_source, splits, train_and_test


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value % 256, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, *names: str) -> Path:
    """An image (its red its place in `names`) or, for other suffixes, a text file at each name."""
    for value, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(value) if path.suffix.lower() in {".png", ".jpg"} else b"text")
    return root


def parquet(path: Path, values: range, *, group: int = 3, features: Any = None, **columns: list[Any]) -> Path:
    """Rows in Hugging Face `Image` format, images png(value) for each value, `group` rows to a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(value), "path": f"{value:03d}.png"} for value in values]
    table = pa.table({"image": images, **columns})
    if features is not None:
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(meta)
    pq.write_table(table, path, row_group_size=group)
    return path


def test_folder_is_sorted_recursive_and_ignores_the_rest(tmp_path: Path) -> None:
    names = ["b/2.png", "a/x/1.JPG", "a/0.png", "notes.txt", ".hidden.png", ".cache/3.png"]
    source = open_source(folder(tmp_path / "pets", *names))
    assert source.ids == ["a/0.png", "a/x/1.JPG", "b/2.png"]
    assert source.labels == [0, 0, 1] and source.classes == ["a", "b"]
    assert (source.name, source.split, len(source)) == ("pets", None, 3)
    assert source.read(0) == png(2)


def test_an_image_outside_the_class_folders_leaves_the_folder_unlabelled(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, "a/0.png", "b/1.png", "2.png"))
    assert source.labels is None and source.classes is None and len(source) == 3
    with pytest.raises(DataError, match=r"move into a class sub-folder what lies beside them: 2\.png$"):
        classes_of(source, source)


def test_stray_images_are_named_up_to_three_in_a_split_as_well(tmp_path: Path) -> None:
    strays = [f"train/{i}.png" for i in range(5)]
    train = open_source(folder(tmp_path, "train/a/x/0.png", "train/b/1.png", "val/a/2.png", *strays), "train")
    with pytest.raises(DataError, match=r"beside them: train/0\.png, train/1\.png, train/2\.png and 2 more$"):
        classes_of(train, train)
    train, test, _ = train_and_test(folder(tmp_path / "one", "a/0.png", "b/1.png", "c/2.png", "3.png"))
    for parts in ((train, test), (test, train)):  # the stray lies in one of them
        with pytest.raises(DataError, match=r"beside them: 3\.png$"):
            classes_of(*parts)
    bare = open_source(folder(tmp_path / "bare", "0.png", "1.png"))
    with pytest.raises(DataError, match="every image must lie in a class sub-folder"):
        classes_of(bare, bare)


def test_one_image_file_is_a_source_of_one(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, "cat.png") / "cat.png")
    assert (source.ids, source.labels, source.read(0)) == (["cat.png"], None, png(0))


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    folder(tmp_path / "real", "0.png")
    folder(tmp_path / "all", "b/1.png")
    (tmp_path / "all" / "a").symlink_to(tmp_path / "real")
    (tmp_path / "all" / "a" / "back").symlink_to(tmp_path / "all")
    assert open_source(tmp_path / "all").ids == ["a/0.png", "b/1.png"]


@pytest.mark.parametrize("held", ["val", "validation", "valid", "Val", "test"])
def test_folder_splits(tmp_path: Path, held: str) -> None:
    root = folder(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png", f"{held}/dog/2.png")
    canonical = "test" if held == "test" else "validation"
    assert splits(root) == ["train", canonical]
    test = open_source(root, held)
    assert (test.ids, test.split, test.name) == ([f"{held}/dog/2.png"], canonical, "pets")
    # Classes are those of all splits: a split that lacks one numbers the others alike.
    assert test.labels == [1] and test.classes == ["cat", "dog"]
    assert open_source(root, "train").labels == [0, 1]
    assert len(open_source(root)) == 3


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, "train/0.png", "plane/1.png"))
    assert splits(tmp_path) == [] and source.classes == ["plane", "train"]


def test_a_split_folder_given_itself_keeps_the_name_of_the_whole(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", "train/cat/0.png", "val/cat/1.png")
    assert open_source(root / "val").title == "pets, validation"


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_parquet_reads_every_row_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], random: Any
) -> None:
    root = tmp_path_factory.mktemp("rows")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if size:
            parquet(root / f"{i}.parquet", range(start, start + size), group=2)
    total = sum(sizes)
    if total == 0:
        with pytest.raises(DataError, match="no images"):
            open_source(root)
        return
    source = open_source(root)
    order = [*range(total), *random.sample(range(total), total)]
    assert [source.read(i) for i in order] == [png(i) for i in order]
    assert source.ids == [f"{i:03d}.png" for i in range(total)]


def test_parquet_labels_and_class_names(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    path = parquet(tmp_path / "pets.parquet", range(4), label=[0, 1, 1, 0], features=features)
    source = open_source(path)
    assert (source.labels, source.classes, source.name) == ([0, 1, 1, 0], ["cat", "dog"], "pets")


@pytest.mark.parametrize(
    ("columns", "features", "labels", "classes"),
    [
        ({"label": [3, 0, 3]}, None, [3, 0, 3], None),
        ({"label": ["b", "a", "b"]}, None, [1, 0, 1], ["a", "b"]),
        ({"fine": [0, 1, 0]}, {"fine": {"_type": "ClassLabel", "names": ["x", "y"]}}, [0, 1, 0], ["x", "y"]),
        ({"label": [-1, -1, -1]}, None, None, None),
        ({"label": [0, None, 1]}, None, None, None),
        ({"label": [0.5, 1.0, 2.0]}, None, None, None),
        ({"breed": ["a", "b", "c"]}, {"breed": {"_type": "Value"}}, None, None),
        ({"label": [0, 1, 0]}, ["not", "a", "mapping"], [0, 1, 0], None),
    ],
)
def test_parquet_label_columns(
    tmp_path: Path,
    columns: dict[str, list[Any]],
    features: Any,
    labels: list[int] | None,
    classes: list[str] | None,
) -> None:
    source = open_source(parquet(tmp_path / "x.parquet", range(3), features=features, **columns))
    assert (source.labels, source.classes) == (labels, classes)


def test_parquet_with_another_image_column_without_paths(tmp_path: Path) -> None:
    table = pa.table({"id": [7, 8], "img": [{"bytes": png(0)}, {"bytes": png(1)}]})
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet")
    assert source.ids == ["0", "1"] and source.read(1) == png(1)


def test_ids_are_unique_even_where_paths_are_not(tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": path} for path in ("x.png", "x.png", None, "y.png")]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    assert open_source(tmp_path / "x.parquet").ids == ["x.png#0", "x.png#1", "2", "y.png"]


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ("train.parquet", "validation.parquet"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train/0000.parquet", "val/0000.parquet"),
        ("default/partial-train/0000.parquet", "default/test/0000.parquet"),
    ],
)
def test_parquet_splits(tmp_path: Path, train: str, held: str) -> None:
    parquet(tmp_path / "pets" / train, range(3), label=[0, 1, 0])
    parquet(tmp_path / "pets" / held, range(3, 5), label=[1, 0])
    folder(tmp_path / "pets", "assets/preview.png", "README.md")
    first, second, said = train_and_test(tmp_path / "pets")
    assert (len(first), len(second)) == (3, 2)
    assert first.read(2) == png(2) and second.read(0) == png(3)
    assert first.name == second.name == "pets" and f"own {second.split} split" in said
    assert len(open_source(tmp_path / "pets")) == 5
    with pytest.raises(DataError, match="its splits are train"):
        open_source(tmp_path / "pets", "tset")


def test_a_split_file_given_itself_keeps_the_name_of_the_whole(tmp_path: Path) -> None:
    source = open_source(parquet(tmp_path / "pets" / "train.parquet", range(2)))
    assert source.title == "pets, train" and splits(tmp_path / "pets" / "train.parquet") == []


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_subset_and_pickle_keep_images_with_their_ids(tmp_path: Path, kind: str) -> None:
    names = [f"{'ab'[i % 2]}/{i}.png" for i in range(9)]
    if kind == "folder":
        source = open_source(folder(tmp_path, *names))
    else:
        source = open_source(parquet(tmp_path / "x.parquet", range(9), label=[i % 2 for i in range(9)]))
    some = source.subset([7, 0, 3]).subset([2, 0])
    assert some.ids == [source.ids[3], source.ids[7]]
    assert some.labels is not None and source.labels is not None
    assert some.labels == [source.labels[3], source.labels[7]]
    again = pickle.loads(pickle.dumps(some))
    assert [again.read(i) for i in range(2)] == [some.read(i) for i in range(2)]
    assert [some.read(0), some.read(1)] == [source.read(3), source.read(7)]


def test_workers_read_what_the_process_reads(tmp_path: Path) -> None:
    source = open_source(parquet(tmp_path / "x.parquet", range(7)))
    source.read(0)  # a decoded row group in this process must not confuse the workers
    loader = DataLoader(range(7), collate_fn=lambda i: source.read(i[0]), num_workers=2)
    assert list(loader) == [png(i) for i in range(7)]


def test_held_out_share_is_always_the_same_balanced_and_disjoint(tmp_path: Path) -> None:
    names = [f"a/{i}.png" for i in range(20)] + [f"b/{i}.png" for i in range(10)] + ["c/only.png"]
    root = folder(tmp_path / "pets", *names)
    train, test, said = train_and_test(root)
    assert set(train.ids) | set(test.ids) == set(names) and not set(train.ids) & set(test.ids)
    assert test.labels is not None and Counter(test.labels) == {
        0: 4,
        1: 2,
    }  # a class of one stays in training
    assert "20% of every class held out, the same for every seed" in said
    assert train_and_test(root)[1].ids == test.ids
    more = folder(root, "a/new.png")
    assert len(set(train_and_test(more)[1].ids) & set(test.ids)) >= 5


def test_held_out_share_without_labels(tmp_path: Path) -> None:
    root = folder(tmp_path, *[f"{i}.png" for i in range(10)])
    train, test, said = train_and_test(root)
    assert (len(train), len(test)) == (8, 2) and "20% of the images" in said


def test_a_test_set_of_its_own_is_matched_by_class_name(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", "cat/0.png", "dog/1.png", "eel/2.png")
    other = folder(tmp_path / "other", "dog/3.png", "eel/4.png")
    train, test, said = train_and_test(data, other)
    assert test.labels == [1, 2] and test.classes == train.classes == ["cat", "dog", "eel"]
    assert said == "Tested on the 2 images of other, as asked."
    with pytest.raises(DataError, match="classes that 'other' lacks: cat"):
        train_and_test(other, data)


def test_missing_image_is_an_image_error(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, "0.png", "1.png"))
    os.remove(tmp_path / "0.png")
    with pytest.raises(ImageError, match=r"0\.png.*No such file"):
        source.read(0)


def test_row_without_bytes_is_an_image_error(tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": "a"}, {"bytes": None, "path": "b"}, None]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet")
    assert source.read(0) == png(0)
    for i in (1, 2):
        with pytest.raises(ImageError, match=f"row {i} of row group 0"):
            source.read(i)


def test_damaged_parquet_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"cut\.parquet.*as parquet"):
        open_source(tmp_path / "cut.parquet")
    path = parquet(tmp_path / "whole.parquet", range(3))
    source = open_source(path)
    path.write_bytes(b"gone wrong")
    with pytest.raises(DataError, match="row group 0"):
        source.read(0)


@pytest.mark.parametrize(
    ("names", "spec", "message"),
    [
        ([], "imagenete", r"no file or folder .*did you mean 'imagenette'.*pass an image folder"),
        (
            ["imagenette/a.txt", "imagenette/b.txt"],
            "imagenette",
            r"no images in .*found 2 \.txt; pass an image",
        ),
        (["imagenette/.hidden.png"], "imagenette", "found nothing"),
        (["imagenette/notes"], "imagenette/notes", "found 1 no suffix"),
    ],
)
def test_messages(tmp_path: Path, names: list[str], spec: str, message: str) -> None:
    (tmp_path / "imagenette").mkdir()
    folder(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / spec)


def test_parquet_without_images_says_what_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "image": ["a.png"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"it has id \(int64\), image \(string\)"):
        open_source(tmp_path / "x.parquet")


def test_labels_that_contradict_are_refused(tmp_path: Path) -> None:
    names = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    path = parquet(tmp_path / "x" / "0.parquet", range(2), label=[0, 2], features=names)
    with pytest.raises(DataError, match="has label 2, but names only 2 classes"):
        open_source(path)
    parquet(path, range(2), label=[0, 1], features=names)
    names["label"]["names"] = ["dog", "cat"]
    parquet(tmp_path / "x" / "1.parquet", range(2), label=[0, 1], features=names)
    with pytest.raises(DataError, match="name their classes differently"):
        open_source(tmp_path / "x")


def test_no_split_and_too_few_images(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", "a/0.png")
    assert len(open_source(root, "train")) == 1  # without splits, all is train
    with pytest.raises(DataError, match=r"no split 'validation' in .*it has no splits"):
        open_source(root, "val")
    with pytest.raises(DataError, match="too few images"):
        train_and_test(root)
    with pytest.raises(DataError, match="between 0 and 1"):
        train_and_test(root, share=1.5)


def test_repr_is_one_line(tmp_path: Path) -> None:
    source: Source = open_source(folder(tmp_path / "pets", "a/0.png", "b/1.png"))
    assert repr(source) == "FolderSource('pets', 2 images, 2 classes)"


def test_needs_no_torch() -> None:
    code = "import zoo.sources, sys; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def labelled_parquet(path: Path, labels: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(labels)  # type: ignore[arg-type]
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(count)]
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    return path


def test_a_class_of_the_test_split_that_no_training_image_has_is_refused(tmp_path: Path) -> None:
    names = [
        f"{split}/{i}.png" for split in ("train/cat", "train/dog", "val/cat", "val/dogs") for i in range(2)
    ]
    with pytest.raises(DataError, match=r"has classes that .* lacks: dogs; did you mean 'dog'\?"):
        train_and_test(folder(tmp_path, *names))


def test_numbers_without_names_are_matched_by_themselves(tmp_path: Path) -> None:
    """Folders called 0, 1, 10 and 2 are sorted as words; a parquet's numbers find them all the same."""
    train = folder(tmp_path / "train", *[f"{name}/{i}.png" for name in (0, 1, 2, 10) for i in range(2)])
    test = labelled_parquet(tmp_path / "test" / "rows.parquet", [0, 1, 2, 10])
    taught, tested, _ = train_and_test(train, test)
    assert taught.classes == ["0", "1", "10", "2"] and tested.labels == [0, 1, 3, 2]
    sparse = labelled_parquet(tmp_path / "species.parquet", [47219, 1234567] * 5)
    few, held, _ = train_and_test(sparse)
    assert few.classes == held.classes == ["47219", "1234567"] and classes_of(few, held) == 2
    assert set(few.labels or []) == set(held.labels or []) == {0, 1}
    with pytest.raises(DataError, match=r"lacks: 10, 2; .*classes are matched by name"):
        train_and_test(labelled_parquet(tmp_path / "two.parquet", [0, 1] * 3), test)


def test_pandas_categories_are_labels(tmp_path: Path) -> None:
    words = pa.array(["dog", "cat", "dog"]).dictionary_encode()
    source = open_source(labelled_parquet(tmp_path / "rows.parquet", words))
    assert source.classes == ["cat", "dog"] and source.labels == [1, 0, 1]


def test_test_images_among_the_training_ones_are_refused(tmp_path: Path) -> None:
    whole = folder(tmp_path / "pets", *[f"{name}/{i}.png" for name in "ab" for i in range(5)])
    for test in (whole, whole / "a"):
        with pytest.raises(
            DataError, match=r"of the test set .* are among the training ones, such as .*a/0\.png"
        ):
            train_and_test(whole, test)
    divided = folder(
        tmp_path / "divided", *[f"{split}/{i}/0.png" for split in ("train", "val") for i in "ab"]
    )
    assert len(train_and_test(divided, divided)[1]) == 2  # its own validation split


def test_splits_that_are_all_to_test_on_are_not_mixed(tmp_path: Path) -> None:
    lone = folder(tmp_path / "lone", *[f"val/{name}/{i}.png" for name in "ab" for i in range(5)])
    assert train_and_test(lone)[2].startswith("No training split in lone: 20% of every class held out")
    both = folder(lone, "test/a/0.png", "test/b/1.png")
    with pytest.raises(DataError, match="has the splits validation and test and none to train on"):
        train_and_test(both)
