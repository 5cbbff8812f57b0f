"""Where files are written."""

import pytest

from timm_resattn.files import check_target, written_whole


def test_where_a_link_points_is_written(tmp_path):
    (tmp_path / "away").mkdir()
    target = tmp_path / "away" / "file.txt"
    target.write_text("old")
    link = tmp_path / "link.png"
    link.symlink_to(target)
    with written_whole(check_target(link)) as partial:
        assert partial.suffix == ".png"
        partial.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_a_link_to_where_no_folder_is(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere" / "file.png")
    with pytest.raises(ValueError, match=r"link\.png' does not exist"):
        check_target(tmp_path / "link.png")
