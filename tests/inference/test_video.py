"""Reading and writing videos."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from eseg_d2.inference.video import FrameRange, VideoReader, VideoWriter


def write(path, count=12, size=(48, 64)):
    """Write a video whose frame i is grey 20 * i, with a bright red upper left quarter."""
    with VideoWriter(path, Fraction(25, 2)) as writer:
        for i in range(count):
            frame = np.full((*size, 3), 20 * i, np.uint8)
            frame[: size[0] // 2, : size[1] // 2] = (250, 20, 20)
            writer.write(frame)
    return writer


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "H.264"), ("mkv", "H.264"), ("webm", "VP9")])
def test_written_videos_are_read_back(tmp_path, suffix, codec):
    writer = write(tmp_path / f"a.{suffix}")
    assert codec in writer.describe() and "12 frames of 64 x 48 at 12.5" in writer.describe()
    with VideoReader(tmp_path / f"a.{suffix}") as reader:
        assert float(reader.fps) == pytest.approx(12.5, rel=0.05)
        frames = list(reader.frames())
    assert [index for index, _ in frames] == list(range(12))
    for index, frame in frames:
        assert abs(int(frame[40, 50].mean()) - 20 * index) < 12
        assert frame[5, 5, 2] > 200 > frame[5, 5, 0]  # BGR


def test_frame_range_selects_frames_and_is_checked(tmp_path):
    write(tmp_path / "a.mp4")
    with VideoReader(tmp_path / "a.mp4") as reader:
        chosen = [index for index, _ in reader.frames(FrameRange(2, 11, 4))]
    assert chosen == [2, 6, 10]
    assert FrameRange(2, 11, 4).count(12) == 3
    with VideoReader(tmp_path / "a.mp4") as reader, pytest.raises(ValueError, match="12 frames"):
        list(reader.frames(FrameRange(12)))
    for wrong in (-1, None, 1), (3, 3, 1), (0, None, 0):
        with pytest.raises(ValueError, match="expected"):
            FrameRange(*wrong)


def test_odd_sizes_are_padded_by_a_pixel(tmp_path):
    write(tmp_path / "a.mp4", size=(47, 63))
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert next(reader.frames())[1].shape == (48, 64, 3)


def test_rotated_videos_are_turned_upright(tmp_path):
    write(tmp_path / "a.mp4")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 44
    assert struct.unpack_from(">i", content, matrix)[0] == 65536
    for i, value in enumerate((0, 1, 0, -1, 0)):  # a quarter turn clockwise
        struct.pack_into(">i", content, matrix + 4 * i, value * 65536)
    (tmp_path / "turned.mp4").write_bytes(content)
    with VideoReader(tmp_path / "turned.mp4") as reader:
        frame = next(reader.frames())[1]
    assert frame.shape == (64, 48, 3)
    assert frame[5, 42, 2] > 200 > frame[5, 5, 2]  # red is at the upper right


def test_files_that_are_not_videos_are_named(tmp_path):
    write(tmp_path / "a.mp4")
    write(tmp_path / "a.mkv")
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "text.mp4").write_text("no video" * 100)
    (tmp_path / "empty.mp4").write_text("")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    # playlists refer to other files, which must not be opened
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path}/a.mp4\n")
    (tmp_path / "hls.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n"
    )
    for name, message in {
        "text.mp4": "is not a video",
        "empty.mp4": "is empty",
        "cut.mp4": "is not a video, or is broken",
        "list.mp4": "is not a video",
        "hls.mp4": "is not a video",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            VideoReader(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(FileNotFoundError, match="absent"):
        VideoReader(tmp_path / "absent.mp4")


def test_truncated_video_is_named_after_its_last_frame(tmp_path):
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "a.mkv", Fraction(10)) as writer:
        for _ in range(30):
            writer.write(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8))
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 3])
    with VideoReader(tmp_path / "cut.mkv") as reader:
        seen = []
        with pytest.raises(ValueError, match=r"cut\.mkv (ends|is broken) after"):
            for index, _ in reader.frames():
                seen.append(index)
    assert 0 < len(seen) < 30


def test_frames_must_have_one_size_and_without_frames_no_file_is_left(tmp_path):
    with (
        pytest.raises(ValueError, match="32 x 32 pixels among frames of 64 x 48"),
        VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.write(np.zeros((32, 32, 3), np.uint8))
    with VideoWriter(tmp_path / "none.mp4", Fraction(10)):
        pass
    assert not (tmp_path / "none.mp4").exists()
