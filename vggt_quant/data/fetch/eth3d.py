"""`fetch eth3d`: a training scene of ETH3D's high-resolution multi-view benchmark, from its official archives.

What a scene consists of (https://www.eth3d.net/documentation; Schoeps et al., CVPR 2017), as DIR/SCENE/...:

    SCENE_dslr_undistorted.7z   images/dslr_images_undistorted/*, dslr_calibration_undistorted/{cameras,images,...}.txt
    SCENE_dslr_jpg.7z           dslr_calibration_jpg/*.txt: the camera of the distorted photos, to which the depth
                                belongs; the photos themselves (images/) are not unpacked
    SCENE_dslr_depth.7z         ground_truth_depth/dslr_images/*: float32, raw
    SCENE_dslr_occlusion.7z     masks_for_images/dslr_images/*.png; its meshes are not unpacked

ETH3D publishes no checksums. The command checks the lengths that the server announces, and the CRC-32 that a 7z archive
stores of its header and of each file. fetched.json records the sha256 of what arrived. Archives are unpacked into a
temporary folder, which is used only if every CRC is right.

Names, layout and sizes (courtyard: 501 MB of photos, 425 MB for the camera, 428 MB of depth) follow independent reports
by users of the archives. They were not compared with the live server when this was written. If a name or a folder
differs there, the command says which. ETH3D's licence is CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import os
import shutil
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import py7zr
from py7zr.exceptions import ArchiveError, CrcError

from vggt_quant.data.fetch.download import AbsentError, DamagedError, FetchError, check_free_space, fetch_checked
from vggt_quant.data.fetch.target import finish, manifest_of, workplace

logger = logging.getLogger(__name__)

BASE_URL = "https://www.eth3d.net/data"
BASE_URL_VARIABLE = "VGGT_QUANT_ETH3D_URL"
"""Environment variable with the address of a mirror."""

SCENES = (
    *("courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office"),
    *("pipes", "playground", "relief", "relief_2", "terrace", "terrains"),
)

DAMAGE = (ArchiveError, lzma.LZMAError, zlib.error, EOFError)
"""What py7zr raises on reading damaged bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One archive of a scene.

    Attributes:
        suffix: Its name is SCENE_suffix.7z.
        folders: What is unpacked of it, below SCENE/.
        is_optional: The scene is complete without these folders, and without the archive.
    """

    suffix: str
    folders: tuple[str, ...]
    is_optional: bool = False


PARTS = (
    Part(suffix="dslr_undistorted", folders=("images", "dslr_calibration_undistorted")),
    Part(suffix="dslr_jpg", folders=("dslr_calibration_jpg",)),
    Part(suffix="dslr_depth", folders=("ground_truth_depth",)),
    Part(suffix="dslr_occlusion", folders=("masks_for_images",), is_optional=True),
)


def fetch_scene(scene: str, to: Path, *, keep_archives: bool) -> None:
    """Put a scene's folder into the folder `to`, and its archives, too, if they are to be kept.

    Raises:
        FetchError: An unknown scene, or see `vggt_quant.data.fetch`.
    """
    if scene not in SCENES:
        raise FetchError(f"ETH3D has no training scene {scene!r}; choose one of {', '.join(SCENES)}.")
    folder = to / scene
    if manifest := manifest_of(folder):
        print(f"{folder} is complete ({len(manifest['files'])} files); nothing was fetched.")
        return
    base = os.environ.get(BASE_URL_VARIABLE) or BASE_URL
    with workplace(folder) as work:
        records = [_fetch_part(base, scene, part, work, keep=to if keep_archives else None) for part in PARTS]
        files = {name: size for record in records for name, size in record.pop("files").items()}
        finish(work / scene, folder, {"scene": scene, "archives": records, "files": files})
    print(f"{folder} is complete ({len(files)} files).")


def unpack(path: Path, scene: str, part: Part, work: Path) -> dict[str, int]:
    """Unpack the wanted folders of an archive into work/SCENE, in place of what is there of them.

    Returns:
        The size of each file by its path below SCENE.

    Raises:
        DamagedError: A CRC is wrong, or it is no 7z archive.
        FetchError: It holds paths that lead elsewhere, or not what it should; or the disk is too small.
    """
    for folder in part.folders:
        shutil.rmtree(work / scene / folder, ignore_errors=True)
    try:
        with path.open("rb") as file, py7zr.SevenZipFile(file) as archive:
            members = list(archive.files)
            _refuse_unsafe(path, members)
            wanted = {member.filename: member.uncompressed for member in members if _is_wanted(member, scene, part)}
            _require_folders(path, wanted, scene, part)
            check_free_space(work, f"Unpacking {path.name}", sum(wanted.values()))
            logger.info("%s: unpacking %d files, %.0f MB.", path.name, len(wanted), sum(wanted.values()) / 1e6)
            archive.extract(work, targets=list(wanted))
    except DAMAGE as error:
        raise DamagedError(_cause(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedError(str(error)) from error  # Says bz2 of damaged bytes.
    return {str(PurePosixPath(name).relative_to(scene)): size for name, size in wanted.items()}


def _fetch_part(base: str, scene: str, part: Part, work: Path, keep: Path | None) -> dict[str, Any]:
    """Download an archive and unpack it into work/SCENE, unless that is done; return what it was and holds.

    It ends in the folder `keep`, or is deleted.
    """
    path = work / f"{scene}_{part.suffix}.7z"
    url = f"{base.rstrip('/')}/{path.name}"
    done = path.with_suffix(".json")
    if done.exists():
        record: dict[str, Any] = json.loads(done.read_text())
        return record
    cure = f"check the network, or name a mirror with {BASE_URL_VARIABLE}"
    try:
        files = fetch_checked(url, path, partial(unpack, scene=scene, part=part, work=work), cure=cure)
    except AbsentError as error:
        if not part.is_optional:
            raise
        logger.warning("%s The scene goes without %s.", error, " and ".join(part.folders))
        return {"url": url, "size": 0, "sha256": None, "files": {}}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {"url": url, "size": path.stat().st_size, "sha256": digest, "files": files}
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(record))
    os.replace(draft, done)
    if keep:
        os.replace(path, keep / path.name)
    else:
        path.unlink()
    return record


def _refuse_unsafe(path: Path, members: list[py7zr.py7zr.ArchiveFile]) -> None:
    for member in members:
        inside = PurePosixPath(member.filename)
        leads_out = inside.is_absolute() or ".." in inside.parts or ":" in member.filename
        if leads_out or member.is_symlink or member.is_junction or member.is_socket:
            what = "leads out of the folder" if leads_out else "is a link or a socket"
            raise FetchError(
                f"{path} is not unpacked: its member {member.filename!r} {what}; delete it and fetch it from a source "
                "that you trust."
            )


def _is_wanted(member: py7zr.py7zr.ArchiveFile, scene: str, part: Part) -> bool:
    return not member.is_directory and PurePosixPath(member.filename).parts[:2] in {(scene, f) for f in part.folders}


def _require_folders(path: Path, wanted: dict[str, int], scene: str, part: Part) -> None:
    for folder in part.folders:
        if any(name.startswith(f"{scene}/{folder}/") for name in wanted):
            continue
        if not part.is_optional:
            raise FetchError(f"{path} holds no {scene}/{folder}; delete it and check {BASE_URL_VARIABLE}.")
        logger.warning("%s holds no %s/%s; the scene goes without.", path.name, scene, folder)


def _cause(error: Exception) -> str:
    if isinstance(error, CrcError):
        return f"wrong checksum of {error.filename or 'a block'}"
    return str(error).strip().split("\n")[0] or type(error).__name__
