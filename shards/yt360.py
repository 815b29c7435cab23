"""A list of YT-360 (AVSA, arXiv 2011.01819) for `avssl-shards build`.

SEGMENTS is the published list of segments: a line has a video's id, a space, and start seconds with commas between.
SPLIT is a published list of ids, one a line, e.g. that of training or of test.
ROOT holds the videos with their spatial sound, whole or already cut (file name: ID, or ID-START):
    3wB0YSoJBPU.mp4    or    3wB0YSoJBPU-120.mp4
(.mkv and .webm are found too). The list names what the files are: ambisonics and projection.
`data.sample_by: video` of a training config then draws videos alike, however many segments they have.
"""

from collections.abc import Iterator
from pathlib import Path

from lists import parser, write_list

_EXTENSIONS = {".mp4", ".mkv", ".webm"}


def read_segments(path: Path) -> dict[str, list[int]]:
    """The start seconds of each video, in the list's order."""
    segments = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            video, starts = line.split()
            segments[video] = [int(start) for start in starts.split(",") if start]
    return segments


def rows(
    segments: dict[str, list[int]], ids: list[str] | None, root: Path, segment_s: int, facts: dict[str, str]
) -> Iterator[dict]:
    found = {
        path.stem: path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.suffix in _EXTENSIONS
    }
    for video in segments if ids is None else ids:
        for start in segments.get(video, []):
            cut = found.get(f"{video}-{start}")
            if cut is not None:
                row = {"path": cut}
            else:
                row = {"path": found.get(video, f"{video}.mp4"), "start_s": start, "end_s": start + segment_s}
            yield row | {"video": video, "from_s": start} | facts


def main() -> None:
    arguments = parser(__doc__, root="the folder of videos or segments")
    arguments.add_argument("--segments", type=Path, required=True, help="ids with start seconds")
    arguments.add_argument("--split", type=Path, help="ids to take, one a line (default: all that have segments)")
    arguments.add_argument("--segment-s", type=int, default=10, help="length of a segment (default: %(default)s)")
    arguments.add_argument(
        "--ambisonics", choices=["ambix", "n3d", "fuma", "youtube"], default="youtube",
        help="what the sound of the files is: youtube for six channels of AAC, ambix for four (default: %(default)s)",
    )  # fmt: skip
    args = arguments.parse_args()
    segments = read_segments(args.segments)
    ids = [line.strip() for line in args.split.read_text(encoding="utf-8").splitlines()] if args.split else None
    facts = {"ambisonics": args.ambisonics, "projection": "equirectangular"}
    write_list(args.out, args.root, rows(segments, ids, args.root, args.segment_s, facts))


if __name__ == "__main__":
    main()
