"""When a certificate ends: read from files as certificate authorities write them."""

from __future__ import annotations

import base64
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from agent.certificate import LOOK_S, Certificate, CertificateError, days_left
from protocols.uplink.mqtt_settings import TlsSettings

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
AUTHORITY = trustme.CA()


def written(path: Path, end: datetime, *, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> Path:
    made = AUTHORITY.issue_cert("gw-1", not_before=end - timedelta(days=900), not_after=end, key_type=key_type)
    path.write_bytes(b"Bag Attributes: of some tool\n" + b"".join(blob.bytes() for blob in made.cert_chain_pems))
    return path


@pytest.mark.parametrize(
    ("left", "days"),
    [
        (timedelta(days=90, hours=1), 90),
        (timedelta(days=1), 1),
        (timedelta(hours=23), 0),
        (timedelta(hours=-1), -1),
        (timedelta(days=365 * 30), 10_950),  # after 2049, where certificates write the year with four digits
    ],
)
@pytest.mark.parametrize("key_type", list(trustme.KeyType))
def test_the_days_are_counted_to_the_end(tmp_path: Path, left: timedelta, days: int, key_type: trustme.KeyType) -> None:
    path = written(tmp_path / "cert.pem", NOW + left, key_type=key_type)
    assert days_left(path, NOW.timestamp()) == days


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_certificate_is_told_in_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cert.pem"
    path.write_text(content)
    with pytest.raises(CertificateError, match=r"cert\.pem holds no"):
        days_left(path, 0.0)


def test_every_cut_short_certificate_is_refused_or_has_an_end(tmp_path: Path) -> None:
    path = written(tmp_path / "cert.pem", NOW)
    begin = path.read_text().index("-----BEGIN")
    der = ssl.PEM_cert_to_DER_cert(path.read_text()[begin:].split("-----END")[0] + "-----END CERTIFICATE-----")
    for length in range(len(der)):
        text = base64.encodebytes(der[:length]).decode()
        path.write_text(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")
        with contextlib.suppress(CertificateError):
            assert days_left(path, NOW.timestamp()) == 0


def test_a_renewed_file_is_noticed_and_a_missing_one_no_error(tmp_path: Path) -> None:
    now_s = NOW.timestamp()
    path = tmp_path / "cert.pem"
    certificate = Certificate(TlsSettings(cert_file=path, key_file=path))
    assert certificate.days_left(now_s) is None
    written(path, NOW + timedelta(days=3, hours=2))
    assert certificate.days_left(now_s + LOOK_S - 1) is None, "it is not read all the time"
    assert certificate.days_left(now_s + LOOK_S) == 3
    assert Certificate(None).days_left(now_s) is None
    assert Certificate(TlsSettings()).days_left(now_s) is None
