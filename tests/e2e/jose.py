"""Opens and seals a bundle's key with jwcrypto, which knows nothing of Latchkey.

jose.py open FILE: {"jwe", "private_key"} -> {"key" (PEM), "header", "aad"}
jose.py seal FILE: {"domain", "certificate_sha256", "recipients", "key" (PEM)} -> JWE, general JSON serialization
"""

import base64
import json
import sys

from cryptography.hazmat.primitives import serialization
from jwcrypto import jwe, jwk


def from_base64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def pem_of(der):
    key = serialization.load_der_private_key(der, password=None)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def der_of(pem):
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    encoding, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def open_bundle(given):
    token = jwe.JWE(algs=["RSA-OAEP-256", "A256GCM"])
    token.deserialize(json.dumps(given["jwe"]))
    token.decrypt(jwk.JWK.from_pem(given["private_key"].encode()))
    return {
        "key": pem_of(token.payload),
        "header": json.loads(from_base64url(given["jwe"]["protected"])),
        "aad": json.loads(from_base64url(given["jwe"]["aad"])),
    }


def seal(given):
    thumbprint = base64.urlsafe_b64encode(bytes.fromhex(given["certificate_sha256"])).rstrip(b"=").decode()
    aad = json.dumps({"domain": given["domain"], "x5t#S256": thumbprint})
    protected = {"alg": "RSA-OAEP-256", "enc": "A256GCM"}
    token = jwe.JWE(der_of(given["key"]), protected=json.dumps(protected), aad=aad.encode())
    for recipient in given["recipients"]:
        key = jwk.JWK.from_pem(recipient["public_key"].encode())
        token.add_recipient(key, header=json.dumps({"kid": recipient["kid"]}))
    return json.loads(token.serialize(compact=False))


with open(sys.argv[2], encoding="utf-8") as file:
    given = json.load(file)
print(json.dumps({"open": open_bundle, "seal": seal}[sys.argv[1]](given)))
