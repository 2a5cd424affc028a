"""From the network's grid and units back to the user's file."""

import json
import os
import resource

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans import CHANNELS, DATASET_JSON, make_plans
from small_cases import network_for, oblique_case, predictor_for

from nnunetv2_rmr.ext_trainer import trainers_folder
from nnunetv2_rmr.files.input_check import check_files, images_in
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.workers import Failure
from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.inference.export import export_fused, fused_filename, fused_to_input_grid
from nnunetv2_rmr.inference.failed_cases import FailedCasesError
from nnunetv2_rmr.inference.fused_writer import check_can_write, write_image
from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.inference.preprocessing import PROPERTY, RMRConfigurationManager, preprocess_case
from nnunetv2_rmr.inference.sliding_window import ImageAccumulator
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.validation import mean_scores


def preprocess(plans, files):
    configuration = RMRConfigurationManager(plans.get_configuration("test").configuration)
    data, _, properties = configuration.preprocessor_class(verbose=False).run_case(files, None, plans, configuration,
                                                                                   DATASET_JSON)
    return data, properties, configuration


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("mask_norm", [True, False])
@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"])
def test_export_undoes_preprocessing_exactly(tmp_path, transpose, mask_norm, scheme):
    files = oblique_case(tmp_path)
    spacing = np.array((2.5, 1.1, 0.9))[list(transpose)]
    plans = make_plans(spacing=spacing.tolist(), transpose=transpose, mask_norm=mask_norm, scheme=scheme)
    data, properties, configuration = preprocess(plans, files)
    assert data.shape[1:] != sitk.ReadImage(files[0]).GetSize()[::-1]  # something was cropped
    export_fused(data[1], properties, properties[PROPERTY], plans, configuration, ".nii.gz", str(tmp_path / "case"))
    fused, flair = (sitk.ReadImage(str(f)) for f in (tmp_path / "fused" / "case.nii.gz", files[1]))
    np.testing.assert_allclose(sitk.GetArrayFromImage(fused), sitk.GetArrayFromImage(flair), atol=2e-4, rtol=1e-5)
    assert fused.GetSize() == flair.GetSize()
    for index in np.random.default_rng(0).integers(0, 14, (20, 3)).tolist():
        # in mm; what is left is the float32 of the NIfTI header
        np.testing.assert_allclose(fused.TransformIndexToPhysicalPoint(index),
                                   flair.TransformIndexToPhysicalPoint(index), atol=1e-5)


def test_a_warning_names_the_case_not_a_file_that_may_be_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nnunetv2_rmr.registration.misregistration.warnings", lambda *_: ["FLAIR lies elsewhere"])
    preprocess(make_plans(), oblique_case(tmp_path))
    assert "WARNING: case case: FLAIR lies elsewhere\n" in capsys.readouterr().out


def test_export_resamples_back_to_the_grid_of_the_input(tmp_path):
    files = oblique_case(tmp_path, spacing=(1.0, 1.0, 1.0))
    plans = make_plans(spacing=(0.8, 1.25, 0.9), mask_norm=False)
    data, properties, configuration = preprocess(plans, files)
    export_fused(data[1], properties, properties[PROPERTY], plans, configuration, ".nii.gz", str(tmp_path / "case"))
    fused, flair = (sitk.GetArrayFromImage(sitk.ReadImage(str(f)))
                    for f in (tmp_path / "fused" / "case.nii.gz", files[1]))
    assert fused.shape == flair.shape
    assert np.corrcoef(fused[flair > 0], flair[flair > 0])[0, 1] > 0.9  # it was sampled twice


@pytest.mark.parametrize(("target", "transpose", "spacing", "slices"), [
    ((2, 2), (0, 1, 2), (8, 1, 1), 5), ((8, 2, 2), (2, 0, 1), (1, 1, 8), 5), ((2, 2, 2), (2, 0, 1), (1, 1, 8), 15)])
def test_thick_slices_are_resampled_within_themselves(target, transpose, spacing, slices):
    """spacing: of the input. Across thick slices nnU-Net takes the nearest one, so within them a ramp stays a ramp."""
    plans = make_plans(patch_size=(16,) * len(target), spacing=target, transpose=transpose)
    properties = {"spacing": spacing, "shape_before_cropping": (5, 32, 32), "bbox_used_for_cropping":
                  [[0, 5], [0, 32], [0, 32]], "shape_after_cropping_and_before_resampling": (5, 32, 32)}
    coarse, fine = np.arange(16), np.arange(32) / 2 - 0.25
    fused = np.broadcast_to(coarse[:, None] + 2 * coarse, (slices, 16, 16))
    image = fused_to_input_grid(fused, properties, None, plans, plans.get_configuration("test"))
    expected = np.broadcast_to(fine[:, None] + 2 * fine, (5, 32, 32))
    np.testing.assert_allclose(image.transpose(transpose)[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=0.02)


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization"])
@pytest.mark.parametrize("body", [(50,), (10, 70), (20, 90, 150)])
def test_an_image_of_few_distinct_values_gets_its_units_back(scheme, body):
    """Also if all but one of them were clipped, as CT's normalisation does: here at 5 and 195."""
    raw = np.random.default_rng(0).choice(body, (2, 6, 6, 6)).astype(np.float32)
    raw[:, 0, 0, :3], raw[:, 0, 1, :3] = -2000, 3000
    plans = make_plans(scheme=scheme)
    configuration = RMRConfigurationManager(plans.get_configuration("test").configuration)
    data, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
        raw.copy(), None, {"spacing": (1.0, 1.0, 1.0)}, plans, configuration, DATASET_JSON)
    expected = raw[1] if scheme == "ZScoreNormalization" else raw[1].clip(5, 195)
    np.testing.assert_allclose(properties[PROPERTY].undo(data[1]), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("reader", "ending"), [
    ("SimpleITKIO", ".nii.gz"), ("SimpleITKIO", ".nrrd"), ("SimpleITKIO", ".mha"), ("SimpleITKIO", ".gipl"),
    ("SimpleITKIOWithReorient", ".nii.gz"), ("NibabelIO", ".nii.gz"), ("NibabelIOWithReorient", ".nii.gz"),
    ("Tiff3DIO", ".tif")])
def test_every_reader_gets_its_own_image_back(tmp_path, reader, ending):
    cls = recursive_find_reader_writer_by_name(reader)
    array = np.random.default_rng(0).normal(50, 20, (5, 6, 7)).astype(np.float32)
    source = tmp_path / f"case_0000{ending}"
    if reader == "Tiff3DIO":
        write_image(array, str(source), cls, ending, {"spacing": (2.0, 1.0, 1.0)})
        (tmp_path / "case.json").write_text('{"spacing": [2.0, 1.0, 1.0]}')
    else:
        direction = (0, 0, 1, -1, 0, 0, 0, -1, 0) if ending != ".gipl" else None
        tiny.write_image(array, source, spacing=(0.5, 1.5, 2.0), origin=(3, -4, 5), direction=direction)
    image, properties = cls().read_images([str(source)])
    target = str(tmp_path / "out" / f"fused_0000{ending}")
    write_image(image[0], target, cls, ending, properties)
    if reader == "Tiff3DIO":
        (tmp_path / "out" / "fused.json").write_text((tmp_path / "out" / "fused_0000.json").read_text())
    again, properties_again = cls().read_images([target])
    np.testing.assert_array_equal(again, image)
    np.testing.assert_allclose(properties_again["spacing"], properties["spacing"])
    if reader != "Tiff3DIO":
        a, b = sitk.ReadImage(str(source)), sitk.ReadImage(target)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b))
        for index in ((0, 0, 0), (4, 3, 2)):
            np.testing.assert_allclose(a.TransformIndexToPhysicalPoint(index), b.TransformIndexToPhysicalPoint(index),
                                       atol=1e-5)


def test_2d_tiff_holds_floats_and_png_is_refused_by_name(tmp_path):
    cls = recursive_find_reader_writer_by_name("NaturalImage2DIO")
    image = np.random.default_rng(0).normal(size=(1, 6, 7)).astype(np.float32)
    write_image(image, str(tmp_path / "fused.tif"), cls, ".tif", {"spacing": (999, 1, 1)})
    np.testing.assert_array_equal(cls().read_images([str(tmp_path / "fused.tif")])[0][0], image)
    with pytest.raises(NotImplementedError, match=r"\.png files hold integers only"):
        check_can_write(cls, ".png")


def test_what_is_not_written_may_be_of_a_format_without_floats(tmp_path):
    plans = make_plans()
    plans.plans["image_reader_writer"] = "NaturalImage2DIO"
    predictor = predictor_for(plans, network_for(plans))
    predictor.dataset_json = DATASET_JSON | {"file_ending": ".png"}
    image = np.random.default_rng(0).normal(100, 20, (2, 16, 16, 16)).astype(np.float32)
    predictor.predict_single_npy_array(image, {"spacing": (1.0, 1.0, 1.0)})
    assert predictor.fused_volumes[0].shape == (16, 16, 16)
    with pytest.raises(NotImplementedError, match=r"\.png files hold integers only"):
        predictor.predict_single_npy_array(image, {"spacing": (1.0, 1.0, 1.0)}, None, str(tmp_path / "case"))


def test_a_failing_writer_leaves_neither_a_new_file_nor_a_damaged_old_one(tmp_path):
    cls = recursive_find_reader_writer_by_name("SimpleITKIO")
    target = tmp_path / "case.nii.gz"
    target.write_bytes(b"old")
    with pytest.raises(KeyError):
        write_image(np.zeros((2, 2, 2)), str(target), cls, ".nii.gz", properties={})
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_a_full_disk_leaves_no_file_that_looks_complete(tmp_path, reader):
    cls = recursive_find_reader_writer_by_name(reader)
    tiny.write_image(np.zeros((2, 2, 2), np.float32), tmp_path / "case_0000.nii.gz")
    _, properties = cls().read_images([str(tmp_path / "case_0000.nii.gz")])
    noise = np.random.default_rng(0).normal(size=(40, 40, 40))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 16, limit[1]))  # of a file, in bytes
    try:
        with pytest.raises(OSError):
            write_image(noise, str(tmp_path / "fused.nii.gz"), cls, ".nii.gz", properties)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [f.name for f in tmp_path.iterdir()] == ["case_0000.nii.gz"]


def test_spacings_that_nnunets_reader_refuses_without_a_word_are_named(tmp_path):
    files = oblique_case(tmp_path)
    image = sitk.ReadImage(files[1])
    image.SetSpacing((0.9, 1.1, 2.5005))  # the furthest voxel is displaced by less than the tolerance of grids
    sitk.WriteImage(image, files[1])
    with pytest.raises(BadCaseError, match=r"case_0001.*case_0000.*spacing \(mm\) 0\.9 x 1\.1 x 2\.5005 instead of"):
        check_files(files)


def test_sheared_axes_which_nnunet_reads_with_nibabel_are_no_reason_to_refuse_a_case(tmp_path):
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[0, 1], affine[:3, 3] = 0.1, (3, -4, 5)
    files = [tmp_path / f"case_{i:04d}.nii.gz" for i in range(3)]
    for file, shift in zip(files, (0, 0, 1)):  # mm
        image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), affine)
        affine[0, 3] = 3 + shift
        image.set_sform(affine, 1)
        image.set_qform(None, 0)
        nibabel.save(image, file)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(files[0]))
    check_files([str(f) for f in files[:2]])
    with pytest.raises(BadCaseError, match=r"case_0002.*does not lie on the grid of .*case_0000.*origin"):
        check_files([str(files[0]), str(files[2])])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are not everywhere")
def test_what_is_named_like_an_image_and_can_not_be_read_like_a_file_is_no_image(tmp_path):
    tiny.write_image(np.zeros((2, 2, 2), np.float32), tmp_path / "a_0000.nii.gz")
    os.mkfifo(tmp_path / "b_0000.nii.gz")
    (tmp_path / "c_0000.nii.gz").mkdir()
    (tmp_path / "d_0000.nii.gz").symlink_to("d_0000.nii.gz")
    assert [image[0] for image in images_in(tmp_path, ".nii.gz")] == ["a_0000.nii.gz"]


def test_fused_images_get_a_folder_of_their_own():
    assert fused_filename("out/case", ".nii.gz").replace("\\", "/") == "out/fused/case.nii.gz"


def test_bad_input_is_named(tmp_path):
    plans = make_plans()
    files = oblique_case(tmp_path)
    with pytest.raises(BadCaseError, match=r"case_0001.nii.gz \(FLAIR\) missing"):
        preprocess(plans, files[:1])
    with pytest.raises(BadCaseError, match=r"nowhere\.nii\.gz does not exist"):
        preprocess(plans, [files[0], "nowhere.nii.gz"])
    shifted = sitk.ReadImage(files[1])
    shifted.SetOrigin((0, 0, 0))
    sitk.WriteImage(shifted, files[1])
    with pytest.raises(BadCaseError, match=r"case_0001.*not lie on the grid of .*case_0000.*origin.*resample"):
        preprocess(plans, files)


@pytest.mark.parametrize("shape", [(16, 16, 16), (11, 16, 14)])
def test_where_one_tile_covers_the_image_the_sliding_window_changes_nothing(shape):
    plans = make_plans()
    network, x = network_for(plans), torch.randn(2, *shape)
    predictor = predictor_for(plans, network)
    predictor.predict_logits_from_preprocessed_data(x)
    padded, slicer = pad_nd_image(x, (16, 16, 16), return_slicer=True)
    with torch.no_grad():
        direct = network(padded[None], images=True)[1][0][slicer]
    images = predictor.predict_images_from_preprocessed_data(x)
    torch.testing.assert_close(images, direct)
    torch.testing.assert_close(predictor.take_fused(), predictor.fuse(images, x))


def test_tiles_agree_with_the_whole_image_away_from_their_borders():
    # what the head adds depends on a few voxels around only; tile borders see zero padding and weigh little
    plans = make_plans()
    network, x = network_for(plans), torch.randn(2, 40, 24, 16)
    for parameter in network.segmentation.parameters():  # its instance norms see the whole tile
        torch.nn.init.zeros_(parameter)
    tiled = predictor_for(plans, network).predict_images_from_preprocessed_data(x)
    with torch.no_grad():
        whole = network(x[None], images=True)[1][0]
    added = (whole - x).std()
    assert added > 0.05 and (tiled - whole).abs().median() < 0.02 * added


@pytest.mark.parametrize("method", ["predict_logits_from_preprocessed_data", "predict_sliding_window_return_logits"])
def test_segmentation_is_the_same_with_and_without_the_fused_image(method):
    plans = make_plans()
    network, x = network_for(plans), torch.randn(2, 24, 18, 16)
    ours, stock = (getattr(predictor_for(plans, network, cls), method)(x) for cls in (RMRPredictor, nnUNetPredictor))
    assert torch.equal(ours, stock)


def test_what_is_kept_for_ensembling_can_be_read_without_this_package(tmp_path):
    plans = make_plans()
    predictor = predictor_for(plans, network_for(plans))
    images, properties = plans.image_reader_writer_class().read_images(oblique_case(tmp_path))
    predictor.predict_single_npy_array(images, properties, None, str(tmp_path / "case"), True)
    assert b"nnunetv2_rmr" not in (tmp_path / "case.pkl").read_bytes()


def test_the_fused_image_is_made_of_the_mean_over_folds():
    plans = make_plans()
    a, x = network_for(plans), torch.randn(2, 16, 16, 16)
    folds = [{k: v.clone() for k, v in a.state_dict().items()} for _ in range(2)]
    for value in folds[1].values():
        value.mul_(0.5)
    predictor = predictor_for(plans, a)
    images = []
    for parameters in folds:
        a.load_state_dict(parameters)
        images.append(predictor.predict_images_from_preprocessed_data(x))
    assert not torch.allclose(*images, atol=0.1)
    predictor.list_of_parameters = folds
    predictor.predict_logits_from_preprocessed_data(x)
    torch.testing.assert_close(predictor.take_fused(), predictor.fuse((images[0] + images[1]) / 2, x), atol=1e-4,
                               rtol=1e-4)


def test_results_of_the_other_cases_come_with_the_failure_of_one(monkeypatch):
    plans = make_plans()
    predictor = predictor_for(plans, network_for(plans))
    image = np.random.default_rng(0).normal(size=(2, 16, 16, 16)).astype(np.float32)
    predict = predictor.predict_logits_from_preprocessed_data

    def fail_at_ones(data):
        if (data == 1).all():
            raise torch.OutOfMemoryError("no memory")
        return predict(data)

    monkeypatch.setattr(predictor, "predict_logits_from_preprocessed_data", fail_at_ones)
    properties = {"spacing": [1.0, 1.0, 1.0], "shape_before_cropping": (16, 16, 16),
                  "shape_after_cropping_and_before_resampling": (16, 16, 16), "bbox_used_for_cropping": [[0, 16]] * 3}
    items = [{"data": torch.from_numpy(x), "data_properties": dict(properties), "ofile": None}
             for x in (image, np.ones_like(image), image)]
    with pytest.raises(FailedCasesError, match=r"(?s)1 case.*array 1: OutOfMemoryError: no memory") as raised:
        predictor.predict_from_data_iterator(items, num_processes_segmentation_export=0)
    first, failed, last = raised.value.results
    assert isinstance(failed, Failure) and np.array_equal(first, last) and first.shape == (16, 16, 16)
    assert [volume is None for volume in predictor.fused_volumes] == [False, True, False]


def test_going_on_a_case_is_done_with_both_outputs_whole(tmp_path):
    plans = make_plans()
    predictor = predictor_for(plans, network_for(plans))
    outputs = tmp_path / "case.nii.gz", tmp_path / "fused" / "case.nii.gz"
    for file in outputs:
        tiny.write_image(np.ones((4, 5, 6), np.float32), file)

    def to_do() -> int:
        case = str(tmp_path / "case")
        return len(predictor._manage_input_and_output_lists([["a", "b"]], [case], overwrite=False)[0])

    assert to_do() == 0
    for file in outputs:
        whole = file.read_bytes()
        for left in (b"", whole[:-20]):
            file.write_bytes(left)
            assert to_do() == 1
        file.unlink()
        assert to_do() == 1
        file.write_bytes(whole)


def test_the_second_stage_of_a_cascade_asks_for_the_first_ones_segmentations(tmp_path):
    plans = make_plans()
    predictor = predictor_for(plans, network_for(plans))
    predictor.configuration_manager.configuration["previous_stage"] = "3d_lowres"
    with pytest.raises(ValueError, match=r"second stage of a cascade: .*-prev_stage_predictions"):
        predictor.predict_from_files([["a", "b"]], [str(tmp_path / "case")])


def test_the_first_ones_segmentation_comes_behind_the_modalities(tmp_path):
    plans, files = make_plans(), oblique_case(tmp_path)
    configuration = RMRConfigurationManager(plans.get_configuration("test").configuration)
    first = sitk.ReadImage(files[0]) > 0
    sitk.WriteImage(sitk.Cast(first, sitk.sitkUInt8), tmp_path / "first.nii.gz")
    # saved by a program that scales
    sitk.WriteImage(sitk.Cast(first, sitk.sitkFloat32) * 0.9999, tmp_path / "scaled.nii.gz")
    alone, behind, scaled = (preprocess_case(files, stage, None, plans, configuration, DATASET_JSON, False)["data"]
                             for stage in (None, str(tmp_path / "first.nii.gz"), str(tmp_path / "scaled.nii.gz")))
    assert torch.equal(behind[:2], alone) and len(behind) == 3 and set(behind[2].unique().tolist()) == {0, 1}
    assert torch.equal(scaled, behind)


@pytest.mark.parametrize(("spoil", "told"), [
    (lambda labels: labels * 0.5, "no integer value"), (lambda labels: labels * 7, "not declared: 7 "),
    (lambda labels: labels[:-1], "does not lie on the grid"), (None, "first.nii lies beside it")])
def test_a_first_stages_segmentation_that_is_none_is_told(tmp_path, spoil, told):
    plans, files = make_plans(), oblique_case(tmp_path)
    configuration = RMRConfigurationManager(plans.get_configuration("test").configuration)
    image = sitk.ReadImage(files[0])
    labels = sitk.GetArrayFromImage(image > 0).astype(np.float32)
    segmentation = sitk.GetImageFromArray(spoil(labels) if spoil else labels)
    for what in ("Spacing", "Origin", "Direction"):
        getattr(segmentation, f"Set{what}")(getattr(image, f"Get{what}")())
    sitk.WriteImage(segmentation, tmp_path / "first.nii.gz")
    if spoil is None:  # another program's copy, which ITK would read
        sitk.WriteImage(segmentation, tmp_path / "first.nii")
    found = preprocess_case(files, str(tmp_path / "first.nii.gz"), None, plans, configuration, DATASET_JSON, False)
    assert isinstance(found, Failure) and "first.nii" in found.message and told in found.message


def test_models_of_other_trainers_are_given_no_bad_input_either(tmp_path):
    plans, files = make_plans(settings=None), oblique_case(tmp_path)
    network = nnUNetTrainer.build_network_architecture(plans, plans.get_configuration("test"), 2, 2, False)
    predictor = predictor_for(plans, network)
    assert not predictor.fuses
    predictor.predict_from_files([files], [str(tmp_path / "out" / "good")])
    sitk.WriteImage(sitk.ReadImage(files[1]) * np.nan, files[1])
    with pytest.raises(FailedCasesError, match=r"case_0001\.nii\.gz: \d+ voxels are NaN"):
        predictor.predict_from_files([files], [str(tmp_path / "out" / "bad")])
    assert {file.name for file in (tmp_path / "out").glob("*.nii.gz")} == {"good.nii.gz"}


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz"])
def test_complex_images_are_told(tmp_path, ending):
    file = tmp_path / f"a_0000{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.complex64)), file)
    with pytest.raises(BadCaseError, match="complex"):
        check_files([str(file)])


def test_so_are_complex_arrays():
    plans = make_plans()
    image = np.random.default_rng(0).normal(size=(2, 16, 16, 16)) + 1j
    with pytest.raises(BadCaseError, match="complex"):
        predictor_for(plans, network_for(plans)).predict_single_npy_array(image, {"spacing": [1.0, 1.0, 1.0]})


def test_a_name_whose_segmentation_would_replace_anothers_is_told_before_it_is_preprocessed(tmp_path):
    plans, files = make_plans(), oblique_case(tmp_path)
    configuration = RMRConfigurationManager(plans.get_configuration("test").configuration)
    found = preprocess_case(files, None, str(tmp_path / "c.nii"), plans, configuration, DATASET_JSON, False)
    assert isinstance(found, Failure) and "c.nii" in found.message


def test_what_nobody_has_thought_of_leaves_its_traceback_in_a_log(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyError("forgotten")

    plans, files = make_plans(), oblique_case(tmp_path)
    predictor = predictor_for(plans, network_for(plans))
    monkeypatch.setattr(predictor, "predict_logits_from_preprocessed_data", fail)
    with pytest.raises(FailedCasesError, match=r"KeyError: 'forgotten'\ntracebacks: .*failed_cases\.log"):
        predictor.predict_from_files([files], [str(tmp_path / "out" / "case")])
    assert "in fail\n    raise KeyError" in (tmp_path / "out" / "failed_cases.log").read_text()


def test_2d_configurations_fuse_slice_by_slice():
    plans = make_plans(patch_size=(16, 16), spacing=(1.0, 1.0))
    network, x = network_for(plans), torch.randn(2, 5, 16, 16)
    predictor = predictor_for(plans, network)
    predictor.predict_logits_from_preprocessed_data(x)
    with torch.no_grad():
        slices = network(x.transpose(0, 1), images=True)[1].transpose(0, 1)
    torch.testing.assert_close(predictor.predict_images_from_preprocessed_data(x), slices, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(predictor.take_fused(), fused_image(slices, x, (1.0, 1.0), 1), atol=1e-4, rtol=1e-4)


def test_a_model_without_fusion_is_predicted_as_by_nnunet():
    plans = make_plans(settings=None)
    torch.manual_seed(0)
    network = nnUNetTrainer.build_network_architecture(plans, plans.get_configuration("test"), 2, 2, False)
    x = torch.randn(2, 20, 16, 16)
    ours, stock = (predictor_for(plans, network, cls) for cls in (RMRPredictor, nnUNetPredictor))
    assert not ours.fuses
    assert torch.equal(*(p.predict_logits_from_preprocessed_data(x) for p in (ours, stock)))


@pytest.mark.parametrize("gaussian", [True, False])
def test_an_image_cut_into_overlapping_tiles_comes_back_to_the_last_digits(gaussian):
    image = torch.linspace(-3, 5, 2 * 10 * 9).reshape(2, 10, 9)
    accumulator = ImageAccumulator((2, 10, 9), (4, 4), gaussian, torch.device("cpu"))
    for top in (0, 2, 4, 6):
        for left in (0, 3, 5):
            tile = (slice(None), slice(top, top + 4), slice(left, left + 4))
            accumulator.add(tile, image[tile][None])
    assert (accumulator.mean() - image).abs().max() < 1e-5


def test_a_tile_weighs_little_at_its_border():
    accumulated = {gaussian: ImageAccumulator((1, 16, 24), (16, 16), gaussian, torch.device("cpu"))
                   for gaussian in (True, False)}
    for accumulator in accumulated.values():
        for start, value in ((0, 0.0), (8, 1.0)):
            accumulator.add((slice(None), slice(None), slice(start, start + 16)), torch.full((1, 1, 16, 16), value))
    assert (accumulated[False].mean()[..., 8:16] == 0.5).all()
    mean = accumulated[True].mean()[0, 8]
    assert mean[8] < 0.05 and mean[15] > 0.95 and (mean.diff() >= 0).all()


def test_the_spacing_of_the_fusion_has_the_axis_order_of_the_data():
    plans = make_plans(spacing=(1.0, 2.0, 6.0))
    x = torch.randn(2, 16, 16, 16)
    predictor = predictor_for(plans, network_for(plans))
    images = predictor.predict_images_from_preprocessed_data(x)
    expected, turned = (fused_image(images, x, spacing, 1) for spacing in ((1.0, 2.0, 6.0), (6.0, 2.0, 1.0)))
    assert not torch.allclose(expected, turned, atol=0.1)
    torch.testing.assert_close(predictor.fuse(images, x), expected)
    torch.testing.assert_close(predictor.fusion_target(x), fused_image(x, x, (1.0, 2.0, 6.0), 1))


@pytest.mark.parametrize("reference", [0, 1])
def test_the_fused_image_has_the_intensities_of_the_reference_modality_of_the_settings(reference):
    plans = make_plans(settings=RMRSettings(reference_modality=CHANNELS[reference]))
    x = torch.randn(2, 16, 16, 16) + torch.tensor([-5.0, 5.0]).reshape(2, 1, 1, 1)
    predictor = predictor_for(plans, network_for(plans))
    predictor.predict_logits_from_preprocessed_data(x)
    assert float(predictor.take_fused().mean()) == pytest.approx((-5.0, 5.0)[reference], abs=2)


def test_settings_of_the_model_decide_the_reference_modality(tmp_path):
    plans = make_plans(settings=RMRSettings(reference_modality="T1"))
    _, properties, _ = preprocess(plans, oblique_case(tmp_path))
    t1 = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "case_0000.nii.gz")))
    assert properties[PROPERTY].intercept == pytest.approx(t1[t1 > 0].mean(), rel=1e-3)


def test_mean_scores_of_the_validation_leave_out_infinite_ones():
    scores = [{"PSNR": 20.0, "SSIM": 0.5}, {"PSNR": np.inf, "SSIM": 1.0}, {"PSNR": 30.0, "SSIM": 0.6},
              {"PSNR": -np.inf, "SSIM": 0.0}]
    assert mean_scores(scores) == pytest.approx({"PSNR": 25.0, "SSIM": 0.525})
    assert np.isnan(mean_scores(scores[1:2])["PSNR"])


def test_the_predictor_finds_our_trainers_by_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_extTrainer", "")
    with pytest.raises(FileNotFoundError):
        RMRPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(tmp_path), (0,))
    assert os.environ["nnUNet_extTrainer"] == str(trainers_folder())


@pytest.mark.parametrize("trainer", ["nnUNetTrainerRMR", "nnUNetTrainerRMR_paper"])
def test_a_model_of_version_0_1_is_refused_before_its_weights_are_loaded(tmp_path, monkeypatch, trainer):
    plans = make_plans(settings=None).plans | {"rmr": {"stage1_fraction": 0.02}}
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (tmp_path / "fold_0").mkdir()
    torch.save({"trainer_name": trainer, "init_args": {"configuration": "test"}, "network_weights": {}},
               tmp_path / "fold_0" / "checkpoint_final.pth")
    monkeypatch.setenv("nnUNet_extTrainer", "")  # the predictor adds to it
    with pytest.raises(ValueError, match=r"made by nnunetv2-rmr 0\.1, .* predict with version 0\.1\.0"):
        RMRPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(tmp_path), (0,))


def test_fused_volumes_are_in_the_units_of_the_reference_modality_and_never_those_of_the_case_before():
    plans = make_plans()
    predictor = predictor_for(plans, network_for(plans))
    image = np.random.default_rng(0).normal(100, 20, (2, 16, 16, 16)).astype(np.float32)
    predictor.predict_single_npy_array(image, {"spacing": (1.0, 1.0, 1.0)})
    assert float(predictor.fused_volumes[0].mean()) == pytest.approx(100, abs=20)
    with pytest.raises(BadCaseError):
        predictor.predict_single_npy_array(image[:1], {"spacing": (1.0, 1.0, 1.0)})
    assert len(predictor.fused_volumes) == 0


def test_across_thick_slices_the_nearest_is_taken():
    plans = make_plans(spacing=(4, 1, 1))
    properties = {"spacing": (8, 1, 1), "shape_before_cropping": (5, 16, 16), "bbox_used_for_cropping":
                  [[0, 5], [0, 16], [0, 16]], "shape_after_cropping_and_before_resampling": (5, 16, 16)}
    of_slices = np.array([0, 7, 1, 9, 2, 8, 3, 5, 6, 4])
    fused = np.broadcast_to(of_slices[:, None, None], (10, 16, 16))
    image = fused_to_input_grid(fused, properties, None, plans, plans.get_configuration("test"))
    np.testing.assert_allclose(image, image.round(), atol=1e-4)
