"""Certificates and kubeconfigs of one run of the cluster: made at each start, worth nothing after it."""

import base64
import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = dt.timedelta(days=30)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """The cluster's certificate authority; signs for clients and servers alike."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "quiesce-test-cluster")])
        builder = _builder(self._name, self._name, self._key.public_key())
        certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pair = self._write("ca", certificate.sign(self._key, hashes.SHA256()), self._key)

    def issue(self, file: str, name: str, group: str | None = None, addresses: Sequence[str] = ()) -> Pair:
        """A certificate for the user `name` of `group`, and for the server at `addresses`."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = _builder(x509.Name(attributes), self._name, key.public_key()).add_extension(usages, critical=False)
        if addresses:
            names = x509.SubjectAlternativeName([_general_name(address) for address in addresses])
            builder = builder.add_extension(names, critical=False)
        return self._write(file, builder.sign(self._key, hashes.SHA256()), key)

    def kubeconfig(self, file: Path, server: str, user: Pair) -> Path:
        """A kubeconfig that needs no other file."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "quiesce",
                    "cluster": {"server": server, **_data("certificate-authority", self.pair.certificate)},
                }
            ],
            "users": [
                {
                    "name": "quiesce",
                    "user": {**_data("client-certificate", user.certificate), **_data("client-key", user.key)},
                }
            ],
            "contexts": [{"name": "quiesce", "context": {"cluster": "quiesce", "user": "quiesce"}}],
            "current-context": "quiesce",
        }
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(config))
        return file

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_key(pair.key, key)
        return pair


def write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


def signing_pair(folder: Path) -> Pair:
    """The key that service account tokens are signed with, and its public half (in the certificate's place)."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = Pair(folder / "service-accounts.pub", folder / "service-accounts.key")
    write_key(pair.key, key)
    public = key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pair.certificate.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    return pair


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _data(name: str, file: Path) -> dict[str, str]:
    return {f"{name}-data": base64.b64encode(file.read_bytes()).decode()}
