"""What a log shows of a signature of an image, from the image's digest alone."""

import base64
import hashlib
import json

import pytest

from addresses.image_name import parse_image_name
from sigstore_entries.release import image_statement, pre_authentication, released_commit, released_image
from sigstore_entries.signing import digest_label

DIGEST = "sha256:" + "ab" * 32


def test_the_digests_of_an_images_signature_follow_from_its_name_and_digest() -> None:
    release = released_image(parse_image_name(f"localhost:5000/app@{DIGEST}"))
    assert release.what == f"image localhost:5000/app@{DIGEST}"
    # Of both spellings the statement, and its envelope under three hashes; and the payload of cosign before version 3.
    assert len(set(release.digests)) == 2 * (1 + 3) + 1
    statement = (
        '{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"' + "ab" * 32 + '"},'
        '"annotations":{}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}'
    ).encode()
    spaced = statement.replace(b",", b", ")
    for each in (statement, spaced):
        pae = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(each) + each
        assert f"sha256:{hashlib.sha256(each).hexdigest()}" in release.digests
        assert f"sha256:{hashlib.sha256(pae).hexdigest()}" in release.digests
    older = (
        '{"critical":{"identity":{"docker-reference":"localhost:5000/app"},"image":{"docker-manifest-digest":"'
        + DIGEST
        + '"},"type":"cosign container image signature"},"optional":null}'
    )
    assert f"sha256:{hashlib.sha256(older.encode()).hexdigest()}" in release.digests


def test_a_tag_is_no_release() -> None:
    with pytest.raises(ValueError, match="can be moved"):
        released_image(parse_image_name("localhost:5000/app:v1"))


def test_the_statement_is_one_that_says_what_it_is_about() -> None:
    told = json.loads(image_statement(DIGEST, spaced=True))
    assert told["subject"][0]["digest"] == {"sha256": "ab" * 32}
    assert pre_authentication("t", b"x") == b"DSSEv1 1 t 1 x"
    assert base64.b64encode(image_statement(DIGEST)) != base64.b64encode(image_statement(DIGEST, spaced=True))


def test_a_commit_is_logged_by_its_id_as_text_or_by_its_signed_attributes() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert released_commit(commit, None).digests == (f"sha256:{hashlib.sha256(commit.encode()).hexdigest()}",)
    assert released_commit(commit, None).what == f"commit {commit}"
    assert released_commit(commit, None, "tag").what == f"tag {commit}"
    assert released_commit(commit, b"x").digests[1] == f"sha256:{hashlib.sha256(b'x').hexdigest()}"


@pytest.mark.parametrize(
    ("kind", "of", "label"),
    [
        ("hashedrekord", "artifact", "Digest of the signed bytes"),
        ("dsse", "payload", "Digest of the statement"),
        ("intoto", "envelope", "Digest of the envelope"),
        ("rpm", "artifact", "Digest of artifact"),
    ],
)
def test_a_label_says_what_a_digest_is_of(kind: str, of: str, label: str) -> None:
    assert digest_label(kind, of) == label
