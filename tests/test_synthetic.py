"""The drawn world: pictures show what their attributes say, and datasets are drawn whole, once."""

import csv
import errno

import numpy as np
import pytest
from PIL import Image

from core.errors import InputError
from datasets import contact_sheet, drawing, synthchest, synthderm, synthetic
from datasets.synthetic import CHESTS, LESIONS, WORLDS
from datasets.synthskin import SKIN

EVERY = (*WORLDS, SKIN)

PLAIN_LESION = {
    "symmetry": "symmetric",
    "border": "clear",
    "colours": "one",
    "colour": "brown",
    "dots": "none",
    "redness": "none",
    "network": "none",
    "veil": "none",
}
PLAIN_CHEST = {
    "opacity": "none",
    "zone": "lower",
    "bronchogram": "none",
    "borders": "sharp",
    "effusion": "none",
    "cavity": "none",
    "markings": "normal",
}


def drawn(draw, attributes, n=12):
    """[n, 64, 64, 3] float pictures with these attributes, the same nuisance for every vector."""
    return np.stack(
        [draw(attributes, np.random.default_rng([99, i])).astype(float) for i in range(n)]
    )


def lesions(**changed):
    return drawn(synthetic.draw_lesion, PLAIN_LESION | changed)


def chests(**changed):
    return drawn(synthetic.draw_chest, PLAIN_CHEST | changed)


def darkness(pictures):
    return 255 - pictures.mean(-1)


def test_a_picture_depends_on_seed_and_index_alone():
    """The same seed and index give the same bytes; another of either gives others."""
    for world in EVERY:
        one, attributes = synthetic.picture(world, 3, 5)
        again, same = synthetic.picture(world, 3, 5)
        np.testing.assert_array_equal(one, again)
        assert attributes == same
        assert one.shape == (64, 64, 3) and one.dtype == np.uint8
        assert not np.array_equal(one, synthetic.picture(world, 3, 6)[0])
        assert not np.array_equal(one, synthetic.picture(world, 4, 5)[0])


def test_redness_reddens_the_skin_around():
    """Red less green rises where the skin is, not where the lesion is."""
    plain, red = lesions(), lesions(redness="red")
    rise = (red[..., 0] - red[..., 1]) - (plain[..., 0] - plain[..., 1])
    assert rise.max(axis=(1, 2)).min() > 30
    middle = rise[:, 28:36, 28:36]
    assert abs(middle).mean() < 2


def test_a_symmetric_lesion_is_its_own_mirror_image():
    """Turned by half about its centre of darkness, only an asymmetric lesion changes much."""

    def difference(pictures):
        found = []
        for picture in darkness(pictures):
            dark = np.clip(picture - np.median(picture), 0, None)
            weight = dark / dark.sum()
            y, x = (weight * drawing.GRID_Y).sum(), (weight * drawing.GRID_X).sum()
            shift = (-int(round(y * 32)), -int(round(x * 32)))
            centred = np.roll(dark, shift, (0, 1))
            found.append(abs(centred - centred[::-1, ::-1]).sum() / centred.sum())
        return np.median(found)

    assert difference(lesions(symmetry="asymmetric")) > 1.5 * difference(lesions())


def test_a_blurred_border_is_less_steep_and_a_jagged_one_longer():
    """The steepest slopes are of a clear border; a jagged border has most pixels on slopes."""
    slope = {}
    for border in ("clear", "blurred", "jagged"):
        rise = np.hypot(*np.gradient(darkness(lesions(border=border)), axis=(1, 2)))
        slope[border] = np.percentile(rise, 97), (rise > 22).mean()
    assert slope["blurred"][0] < 0.6 * slope["clear"][0]
    assert slope["jagged"][1] > 1.2 * slope["clear"][1]


def test_several_colours_dots_network_and_veil_change_the_inside():
    """Each leaves the traces that it is named for in the lesion's middle."""
    middle = slice(None), slice(22, 42), slice(22, 42)
    plain = lesions()[middle]
    spread = plain.std(axis=(1, 2)).mean()
    assert lesions(colours="several")[middle].std(axis=(1, 2)).mean() > 2 * spread
    darkened = (lesions() - lesions(dots="dots")).mean(-1) > 25
    assert darkened.sum(axis=(1, 2)).min() > 30
    assert lesions(network="network")[middle].std(axis=(1, 2)).mean() > 1.5 * spread
    veiled = lesions(colours="several", veil="veil")[middle]
    blue = (veiled[..., 2] - veiled[..., 0]).mean()
    assert blue > (lesions(colours="several")[middle][..., 2] - plain[..., 0]).mean()


def test_main_colours_are_ordered_by_darkness():
    """Black is darker than brown, brown than tan."""
    middle = [
        darkness(lesions(colour=c))[:, 26:38, 26:38].mean() for c in ("black", "brown", "tan")
    ]
    assert middle == sorted(middle, reverse=True)


def test_an_opacity_whitens_its_zone():
    """The upper or the lower half of the lungs grows brighter, the other stays."""
    plain = chests()
    for zone, rows, other in (
        ("upper", slice(8, 26), slice(38, 44)),
        ("lower", slice(32, 44), slice(4, 14)),
    ):
        change = (chests(opacity="opaque", zone=zone) - plain).mean(-1)
        assert change[:, rows].mean() > 8
        assert abs(change[:, other]).mean() < 0.4 * abs(change[:, rows]).mean()


def test_air_lines_cavity_fluid_and_markings_show():
    """Dark lines in the opacity, black in the cavity, white at a base, streaks in the lungs."""
    opaque = chests(opacity="opaque", zone="upper")
    lined = chests(opacity="opaque", zone="upper", bronchogram="lines")
    assert ((opaque - lined).max(-1) > 60).sum(axis=(1, 2)).min() > 10
    plain = chests()
    hollow = chests(cavity="cavity")
    assert ((hollow - plain).max(-1) > 60).sum(axis=(1, 2)).min() > 20
    fluid = (chests(effusion="fluid") - plain).mean(-1)
    assert (fluid[:, 34:52] > 60).sum(axis=(1, 2)).min() > 30
    assert abs(fluid[:, :28]).mean() < 2
    rough = np.hypot(*np.gradient(chests(markings="increased").mean(-1), axis=(1, 2)))
    smooth = np.hypot(*np.gradient(plain.mean(-1), axis=(1, 2)))
    assert rough[:, 16:40].mean() > 1.3 * smooth[:, 16:40].mean()


# Sums of the pixels of images 0 to 3 of series 7, of the first class of each world.
SUMS = {
    "SynthDerm": [1852820, 1614263, 1885719, 1674309],
    "SynthChest": [1568565, 1607544, 1593402, 1578729],
    "SynthSkin": [1950357, 1678686, 1903386, 1839878],
}


@pytest.mark.parametrize("world", EVERY, ids=lambda world: world.name)
def test_images_stay_what_they_were(world):
    """Another draw of any random number changes a sum by hundreds; rounding by a few."""
    drawn = [synthetic.picture(world, 7, i, next(iter(world.prior)))[0] for i in range(4)]

    found = [int(pixels.sum()) for pixels in drawn]
    np.testing.assert_allclose(found, SUMS[world.name], rtol=0, atol=8)


@pytest.mark.parametrize("world", EVERY, ids=lambda world: world.name)
def test_masks_are_of_what_the_image_shows(world):
    """The attributes are the image's; a mask for each that has a place, none for what is absent."""
    absent = {"dots", "redness", "network", "veil", "bronchogram", "effusion", "cavity"}
    always = {"borders", "markings", "opacity"} if world is CHESTS else {"border", "colours"}
    for i in range(40):
        pixels, shown = synthetic.picture(world, 3, i)
        masks, attributes = synthetic.attribute_masks(world, 3, i)

        assert attributes == shown
        assert set(masks) == always | {
            name for name in absent & set(shown) if shown[name] != "none"
        }
        for mask in masks.values():
            assert mask.shape == pixels.shape[:2] and mask.dtype == bool


@pytest.mark.parametrize(
    ("world", "change", "name"),
    [
        (LESIONS, {"dots": "dots"}, "dots"),
        (LESIONS, {"redness": "red"}, "redness"),
        (LESIONS, {"network": "network"}, "network"),
        (LESIONS, {"colours": "several"}, "colours"),
        (CHESTS, {"opacity": "opaque"}, "opacity"),
        (CHESTS, {"effusion": "fluid"}, "effusion"),
        (CHESTS, {"cavity": "cavity"}, "cavity"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mask_is_where_the_drawing_changes(world, change, name):
    """The image with the attribute less the one without it differs in the mask, not outside."""
    plain = PLAIN_LESION if world is LESIONS else PLAIN_CHEST
    for i in range(6):

        def image(attributes, seed=i):
            return world.draw(attributes, np.random.default_rng([99, seed])).astype(float)

        changed = abs(image(plain | change) - image(plain)).mean(-1)
        mask = world.places(plain | change, np.random.default_rng([99, i]))[name] >= 0.5
        assert 10 < mask.sum() < mask.size / 2
        assert changed[mask].mean() > 4 * changed[~mask].mean()


def test_a_veil_and_air_lines_are_where_they_are_drawn():
    """What needs another attribute: compared with the image that has only that one."""
    for world, plain, with_it, name in (
        (LESIONS, PLAIN_LESION | {"colours": "several"}, {"veil": "veil"}, "veil"),
        (CHESTS, PLAIN_CHEST | {"opacity": "opaque"}, {"bronchogram": "lines"}, "bronchogram"),
    ):
        for i in range(6):
            one, other = (
                world.draw(attributes, np.random.default_rng([99, i])).astype(float)
                for attributes in (plain, plain | with_it)
            )
            changed = abs(one - other).mean(-1)
            mask = world.places(plain | with_it, np.random.default_rng([99, i]))[name] >= 0.5
            assert changed[mask].mean() > 4 * changed[~mask].mean()


def test_the_border_s_mask_follows_the_outline():
    """The steepest slopes lie in it, and it is a band: the middle of the lesion is outside."""
    for border in ("clear", "blurred", "jagged"):
        for i in range(6):
            attributes = PLAIN_LESION | {"border": border}
            image = synthetic.draw_lesion(attributes, np.random.default_rng([99, i]))
            slope = np.hypot(*np.gradient(darkness(image.astype(float))))
            places = LESIONS.places(attributes, np.random.default_rng([99, i]))
            mask, lesion = places["border"] >= 0.5, places["colours"] >= 0.5
            assert slope[mask].mean() > 2 * slope[~mask].mean()
            assert (lesion & ~mask).sum() > 50


def test_hidden_borders_soften_the_heart():
    """The steepest slope along the heart's lower half falls."""
    steep = [
        np.percentile(np.hypot(*np.gradient(chests(borders=b).mean(-1), axis=(1, 2)))[:, 34:48], 98)
        for b in ("sharp", "hidden")
    ]
    assert steep[1] < 0.8 * steep[0]


@pytest.mark.parametrize("world", EVERY, ids=lambda world: world.name)
def test_chances_are_whole_and_no_attribute_decides(world):
    """Every value has a chance in every class, and the best accuracy is between 85 and 92 %."""
    for attribute in world.attributes:
        for classname in world.prior:
            chances = attribute.chances[classname]
            assert len(chances) == len(attribute.values)
            assert sum(chances) == pytest.approx(1)
            assert min(chances) > 0
    assert sum(world.prior.values()) == pytest.approx(1)
    assert 0.85 < synthetic.bayes_accuracy(world) < 0.92


@pytest.mark.parametrize("world", EVERY, ids=lambda world: world.name)
def test_best_accuracy_is_what_guessing_by_the_posterior_reaches(world):
    """The exact figure against 20,000 sampled attribute vectors."""
    rng = np.random.default_rng(0)
    names, prior = list(world.prior), list(world.prior.values())
    n, right = 20000, 0
    for _ in range(n):
        truth = names[rng.choice(len(names), p=prior)]
        belief = synthetic.posterior(world, synthetic.sample_attributes(world, rng, truth))
        right += max(belief, key=belief.get) == truth
    exact = synthetic.bayes_accuracy(world)
    assert right / n == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / n))


def test_what_an_attribute_needs_is_there():
    """A veil only among several colours, air lines only in an opacity."""
    for world in EVERY:
        for i in range(300):
            attributes = synthetic.sample_attributes(world, np.random.default_rng(i))
            assert sum(synthetic.likelihood(world, attributes, c) for c in world.prior) > 0


def test_synthderm_has_the_release_s_layout(tmp_path):
    """Columns, indexes and class counts as in Derm7pt; the true attributes beside."""
    folder = tmp_path / "release_v0"
    synthetic.write_once(folder, synthderm.write_release)
    with open(folder / "meta/meta.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 827 and list(rows[0]) == synthderm.COLUMNS
    for split, melanoma in (("train", 90), ("valid", 61), ("test", 101)):
        lines = (folder / f"meta/{split}_indexes.csv").read_text().split()
        assert lines[0] == "indexes"
        diagnoses = [rows[int(line)]["diagnosis"] for line in lines[1:]]
        assert diagnoses.count("melanoma") == melanoma
        assert len(diagnoses) == {"train": 346, "valid": 161, "test": 320}[split]
    with open(folder / "attributes.csv") as file:
        shown = list(csv.DictReader(file))
    assert [row["picture"] for row in shown] == [f"images/{row['derm']}" for row in rows]
    for row, truth in zip(rows, shown, strict=True):
        assert (row["blue_whitish_veil"] == "present") == (truth["veil"] == "veil")
        assert (row["dots_and_globules"] == "absent") == (truth["dots"] == "none")
        assert (row["pigment_network"] == "absent") == (truth["network"] == "none")
    kept = {name: value for name, value in shown[3].items() if name not in ("picture", "class")}
    pixels, attributes = synthetic.picture(LESIONS, synthderm.SEED, 3, shown[3]["class"])
    assert kept == attributes
    stored = np.asarray(Image.open(folder / shown[3]["picture"])).astype(float)
    assert abs(stored - pixels).mean() < 4


def test_synthchest_has_the_release_s_layout(tmp_path):
    """Folders and names as in the pneumonia release; the true attributes beside."""
    folder = tmp_path / "chest_xray"
    synthetic.write_once(folder, synthchest.write_release)
    counts = {key: len(list((folder.joinpath(*key)).iterdir())) for key in synthchest.COUNTS}
    assert counts == synthchest.COUNTS
    with open(folder / "attributes.csv") as file:
        shown = list(csv.DictReader(file))
    assert len(shown) == sum(counts.values())
    assert {name for name in shown[0]} == {"picture", "class", *(a.name for a in CHESTS.attributes)}
    for row in shown:
        assert (folder / row["picture"]).is_file()
        assert ("bacteria" in row["picture"]) <= (row["opacity"] == "opaque")


def test_a_folder_is_whole_or_absent(tmp_path):
    """A drawing that fails leaves nothing; one that another has finished leaves that one."""

    def fail(folder):
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write_once(tmp_path / "a", fail)
    assert not list(tmp_path.iterdir())

    def overtaken(folder):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "first").write_text("")
        (folder / "second").write_text("")

    synthetic.write_once(tmp_path / "a", overtaken)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    synthetic.write_once(tmp_path / "a", fail)  # there already: nothing is drawn


def failing(error):
    def write(folder):
        raise error

    return write


def test_a_folder_that_cannot_be_made_is_the_user_s_error(tmp_path):
    """One line that names the folder; a full disk stays what it is."""
    for error in (PermissionError("no"), OSError(errno.EROFS, "read-only")):
        with pytest.raises(InputError, match="b: cannot be drawn there"):
            synthetic.write_once(tmp_path / "b", failing(error))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="b: cannot be drawn there"):
        synthetic.write_once(tmp_path / "file" / "b", lambda folder: None)

    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(OSError) as caught:
            synthetic.write_once(tmp_path / "b", failing(OSError(number, "full")))
        assert caught.value.errno == number


def test_contact_sheets(tmp_path, capsys):
    """A sheet for each world; a place that is not there is one line."""
    contact_sheet.main(["--sheet", str(tmp_path / "sheet.png")])

    assert "SynthDerm: best accuracy" in capsys.readouterr().out
    for world in EVERY:
        with Image.open(tmp_path / f"sheet-{world.name}.png") as sheet:
            assert sheet.width > 6 * 2 * drawing.SIZE
    for place in (tmp_path / "none" / "sheet.png", tmp_path / "sheet.unknown"):
        with pytest.raises(InputError, match="--sheet: .*cannot be written"):
            contact_sheet.main(["--sheet", str(place)])
