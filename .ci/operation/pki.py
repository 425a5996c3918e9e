"""Certificates as OpenSSL makes them, and requests as curl sends them."""

import json
import subprocess


def openssl(*arguments, words=None):
    """Runs openssl; returns what it printed."""
    done = subprocess.run(["openssl", *map(str, arguments)], input=words, capture_output=True, text=True,
                          timeout=60, check=False)
    if done.returncode != 0:
        raise AssertionError(f"openssl {arguments[0]}: {done.stderr[-500:]}")
    return done.stdout


def authority(directory, name):
    """A certificate authority; the files of its certificate and key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3",
            "-subj", f"/CN={name}", "-keyout", key, "-out", certificate)
    return certificate, key


def certificate(directory, name, signer, *dns):
    """A pair that `signer` signed: for these DNS names, or for a client where there are none."""
    made, key, request = directory / f"{name}.pem", directory / f"{name}.key", directory / f"{name}.csr"
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", key, "-out", request)
    more = directory / f"{name}.ext"
    names = ",".join(f"DNS:{each}" for each in dns)
    more.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n" if dns else "extendedKeyUsage=clientAuth\n",
                    encoding="utf-8")
    openssl("x509", "-req", "-in", request, "-CA", signer[0], "-CAkey", signer[1], "-CAcreateserial", "-days", "2",
            "-extfile", more, "-out", made)
    return made, key


def curl(url, token, model, *arguments):
    """One chat request; its status as text (`000`: no answer), and curl's exit code."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2}
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", *map(str, arguments),
         "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json", "-d", json.dumps(body),
         f"{url}/v1/chat/completions"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout, done.returncode
