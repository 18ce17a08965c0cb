import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.dicom_client.eclipse import read, suggestions
from services.dicom_client.templates import (
    BadTemplate,
    GeneratedRoi,
    Model,
    RoiProperties,
    Structure,
    Template,
    check,
    from_yaml,
    models_of_server,
    short_label,
    template_from_json,
    template_to_json,
    to_yaml,
)

MODEL = Model(
    720,
    "PelvisMaleOAR",
    "3d_fullres",
    "nnUNetTrainerNoMirroring",
    None,
    (
        Structure(1, "Bladder", RoiProperties("Bladder_AI", "ORGAN", (255, 128, 0))),
        Structure(4, "Femur_Head_L"),
    ),
)
TEMPLATE = Template("Pelvis male", (MODEL,), (GeneratedRoi("PTV_ring"),))


def test_the_document_has_exactly_the_keys_that_the_server_takes():
    said = yaml.safe_load(to_yaml(TEMPLATE))
    assert said == {
        "name": "Pelvis male",
        "protocol": "DRAW",
        "models": {
            720: {
                "name": "PelvisMaleOAR",
                "config": "3d_fullres",
                "map": {1: "Bladder", 4: "Femur_Head_L"},
                "trainer_name": "nnUNetTrainerNoMirroring",
                "postprocess": None,
            }
        },
    }


def test_a_document_reads_back_as_the_template_without_what_stays_here():
    back = from_yaml(to_yaml(TEMPLATE))
    assert back.wanted == TEMPLATE.wanted == ["Bladder", "Femur_Head_L"]
    assert back.models[0].model_id == 720
    assert back.models[0].structures[0].properties == RoiProperties()


def changed(**more):
    said = yaml.safe_load(to_yaml(TEMPLATE))
    said["models"][720] |= more
    return yaml.safe_dump(said)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no YAML"),
        ("[]", "write"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
        ("name: a\nname: b\nprotocol: c\nmodels: {}", "twice"),
        (to_yaml(TEMPLATE).replace("720:", "'720':"), "no whole number"),
        (to_yaml(TEMPLATE).replace("720:", "7:"), "starts at 11"),
        (to_yaml(TEMPLATE).replace("1: Bladder", "'1': Bladder"), "no whole number"),
        (to_yaml(TEMPLATE).replace("4: Femur", "1: Femur"), "twice"),
        (changed(extra=1), "too much extra"),
        (changed(map={}), "map is missing"),
        (changed(postprocess=3), "write a text"),
        (changed(map={0: "x"}), "from 1"),
        (changed(map={True: "x"}), "no whole number"),
    ],
)
def test_a_document_that_the_server_would_refuse_is_refused_here(text, why):
    with pytest.raises(BadTemplate, match=why):
        from_yaml(text)


@given(st.text(max_size=200))
def test_any_text_is_a_template_or_refused_in_words(text):
    with pytest.raises(BadTemplate):
        from_yaml(text)


@pytest.mark.parametrize("text", ["null", ""])
def test_a_missing_last_step_may_be_written_as_text(text):
    assert from_yaml(changed(postprocess=text)).models[0].postprocess is None


def test_a_template_reads_back_from_its_export():
    assert template_from_json(template_to_json(TEMPLATE)) == TEMPLATE
    assert template_from_json(template_to_json(TEMPLATE)).digest == TEMPLATE.digest


def test_a_changed_colour_is_another_version():
    other = template_to_json(TEMPLATE)
    other["models"][0]["structures"][0]["properties"]["colour"] = [1, 2, 3]
    assert template_from_json(other).digest != TEMPLATE.digest


@pytest.mark.parametrize(
    ("generated", "why"),
    [
        (GeneratedRoi("bladder_ai"), "one name"),
        (GeneratedRoi("a" * 17), "1 to 16"),
        (GeneratedRoi("a\\b"), "backslash"),
        (GeneratedRoi("x", RoiProperties(None, "TUMOUR")), "interpreted type"),
        (GeneratedRoi("x", RoiProperties(None, "", (0, 0, 256))), "0 to 255"),
    ],
)
def test_a_structure_that_a_planning_system_refuses_is_refused_here(generated, why):
    with pytest.raises(BadTemplate, match=why):
        check(Template("t", (MODEL,), (generated,)))


def test_a_template_for_the_server_without_structures_is_refused():
    with pytest.raises(BadTemplate, match="at least one"):
        check(Template("t"))
    check(Template("t", engine="theatrum.nodes:ct_body_lungs_bone"))
    with pytest.raises(BadTemplate, match="twice"):
        check(Template("t", (MODEL, MODEL)))


@given(st.text(max_size=60), st.sampled_from(["_L", "_R", " Left", "-rt", ""]))
def test_a_short_label_fits_and_keeps_its_side(name, side):
    label = short_label(name + side)
    assert len(label) <= 16
    assert "\\" not in label
    # Of control characters alone no name is left that could have a side.
    if side and short_label(name):
        assert label.endswith(side)


def test_sides_of_long_names_stay_apart():
    assert short_label("Glnd_Submandibular_L") == "Glnd_Submandib_L"
    assert short_label("Glnd_Submandibular_R") == "Glnd_Submandib_R"


def test_the_catalogue_of_the_server_is_read_and_a_bad_model_left_out():
    entry = {
        "id": 51,
        "mapid": 1,
        "map_tg263_primary_name": "Bladder",
        "Major_Category": "Organ",
        "median_dice_score": "0.95",
        "novelty": [1],
    }
    said = [
        {
            "model_id": 720,
            "model_name": "Pelvis",
            "model_config": "3d_fullres",
            "model_trainer_name": "nnUNetTrainer",
            "model_postprocess": "null",
            "modelmap": [entry],
        },
        {"model_id": "x"},
        None,
    ]
    ((model, more),) = models_of_server(said)
    assert model.postprocess is None
    assert model.structures == (Structure(1, "Bladder"),)
    assert more[1]["Major_Category"] == "Organ"
    with pytest.raises(BadTemplate):
        models_of_server({"models": []})


XML = b"""<?xml version="1.0"?>
<StructureTemplate Version="1.2">
 <Preview ID="Prostate" TreatmentSite="Pelvis"/>
 <Structures>
  <Structure ID="BODY"><Identification><VolumeType>BODY</VolumeType></Identification>
   <ColorAndStyle>Body</ColorAndStyle></Structure>
  <Structure ID="Glnd Submandibular Left"><Identification>
   <VolumeType>Organ</VolumeType></Identification>
   <ColorAndStyle>Segment - 255 128 0</ColorAndStyle></Structure>
  <Structure ID="body"><Identification><VolumeType>?</VolumeType></Identification>
   <Color>#0a0B0c</Color></Structure>
 </Structures>
</StructureTemplate>"""


def test_an_eclipse_template_gives_names_types_and_colours():
    title, found = read(XML)
    assert title == "Prostate"
    assert [one.properties for one in found] == [
        RoiProperties("BODY", "EXTERNAL", None),
        RoiProperties("Glnd Subman Left", "ORGAN", (255, 128, 0)),
        RoiProperties("body~2", "", (10, 11, 12)),
    ]
    assert all(len(one.properties.label or "") <= 16 for one in found)


BOMB = b"""<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<StructureTemplate><Structure ID="&b;"/></StructureTemplate>"""
FILE = b"""<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<StructureTemplate><Structure ID="&a;"/></StructureTemplate>"""


@pytest.mark.parametrize("text", [b"", b"<a", b"<a/>", BOMB, FILE, b"\xff\xfe<"])
def test_xml_that_is_hostile_or_no_template_is_refused(text):
    with pytest.raises(BadTemplate):
        read(text)


def test_a_name_of_the_file_finds_the_model_structure_that_is_meant():
    offered = ["Lung_L", "Lung_R", "Bladder", "Femur_Head_L"]
    assert suggestions("Lt Lung", offered)[0] == "Lung_L"
    assert suggestions("bladder", offered)[0] == "Bladder"
    assert suggestions("zzz", offered) == []
