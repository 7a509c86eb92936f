"""Images pushed into a registry, as small as they can be."""

import json

from addresses.image_name import ImageName, parse_image_name
from outbound.registry import IMAGE_MANIFEST, Registry


def push_image(host: str, name: str, content: bytes) -> ImageName:
    """Push an image with one layer under the tag `v1`; returns its name with its digest."""
    image = parse_image_name(f"{host}/{name}")
    with Registry(image) as registry:
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": registry.put_blob(config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": registry.put_blob(content),
                    "size": len(content),
                }
            ],
        }
        return image.at(registry.put_manifest(json.dumps(manifest).encode(), IMAGE_MANIFEST, "v1"))


def move_referrer(mine: ImageName, other: ImageName) -> None:
    """Put the one signature of an image beside another image, as if it were about that one."""
    with Registry(mine) as source, Registry(other) as target:
        (listed,) = source.referrers(str(mine.digest)).found
        manifest = dict(source.manifest(listed.digest).document)
        for layer in (*manifest["layers"], manifest["config"]):
            target.put_blob(source.blob(layer["digest"]))
        subject = target.manifest(str(other.digest))
        manifest["subject"] = {"mediaType": IMAGE_MANIFEST, "digest": subject.digest, "size": len(subject.raw)}
        target.add_referrer(subject, json.dumps(manifest).encode())
