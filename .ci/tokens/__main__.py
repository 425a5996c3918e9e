"""python3 -m tokens: tokens that PyJWT made, our keys as PyJWT reads them, and tokens taken back."""

import json
import ssl
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from checks.report import Report, exit_on_sigterm, expect, wait_for
from checks.tidegate import Tidegate

#: A server that is there for every route.
ANSWER = b'{"id":"x","object":"chat.completion","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
SECRET = "a secret that is longer than thirty-two bytes"


class Upstream(BaseHTTPRequestHandler):
    """Answers every chat request alike."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):  # the name that http.server asks for
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


class KeySet(BaseHTTPRequestHandler):
    """Serves a JWKS that can change, and counts who asks."""

    keys = []
    asked = 0

    def do_GET(self):  # the name that http.server asks for
        type(self).asked += 1
        text = json.dumps({"keys": self.keys}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def serve(handler):
    """A server of this process; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def public_jwk(key, kid, algorithm):
    """The public half of a key, as an identity provider publishes it."""
    kinds = {"ES256": jwt.algorithms.ECAlgorithm, "RS256": jwt.algorithms.RSAAlgorithm,
             "EdDSA": jwt.algorithms.OKPAlgorithm}
    made = json.loads(kinds[algorithm].to_jwk(key.public_key()))
    return {**made, "kid": kid, "alg": algorithm, "use": "sig"}


def claims(issuer, **more):
    """Claims of a user of another issuer."""
    now = int(time.time())
    return {"iss": issuer, "aud": "tidegate", "sub": "ana", "iat": now, "exp": now + 300, **more}


def chat(gateway, token, model="open"):
    """Status, error code and headers of a chat request."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(
        gateway.url + "/v1/chat/completions", data=body,
        headers={"authorization": f"Bearer {token}", "content-type": "application/json"})
    context = ssl.create_default_context(cafile=gateway.ca)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as response:
            response.read()  # who leaves before the answer has not been told its usage
            return response.status, None, response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["code"], error.headers


def others(report, gateway, keys):
    """Tokens of other issuers, as PyJWT signs them."""
    rsa_key, ec_key, ed_key, later_key = keys
    signed = {
        "a public key file, RS256": jwt.encode(claims("https://a.example"), rsa_key, "RS256"),
        "a JWKS file, ES256": jwt.encode(claims("https://b.example"), ec_key, "ES256", headers={"kid": "b1"}),
        "a JWKS address, EdDSA": jwt.encode(claims("https://c.example", email="ana@c.example"), ed_key, "EdDSA", headers={"kid": "c1"}),
        "a shared secret, HS256": jwt.encode(
            claims("scripts", jti="j1", ver=1, ws="acme", knd="user"), SECRET, "HS256",
            headers={"kid": "hs256", "typ": "wst+jwt"}),
    }
    for name, token in signed.items():
        with report.check(f"a token that PyJWT signed: {name}"):
            seen = wait_for("it is accepted", lambda token=token: chat(gateway, token)[0] == 200, 10)
            expect(seen, "never")
    with report.check("what the keys did not sign, or not for us, or not any more, is refused"):
        stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        for token in [
            jwt.encode(claims("https://a.example"), stranger, "RS256"),
            jwt.encode(claims("https://a.example", aud="elsewhere"), rsa_key, "RS256"),
            jwt.encode(claims("https://nobody.example"), rsa_key, "RS256"),
            jwt.encode(claims("https://b.example"), rsa_key, "RS256", headers={"kid": "b1"}),
            jwt.encode(claims("https://a.example"), "x" * 40, "HS256"),
            jwt.encode(claims("https://a.example"), None, "none"),
        ]:
            expect(chat(gateway, token)[:2] == (401, "invalid_api_key"), jwt.get_unverified_header(token))
        old = jwt.encode(claims("https://a.example", exp=int(time.time()) - 60), rsa_key, "RS256")
        expect(chat(gateway, old)[:2] == (401, "token_expired"), "an old one")
    with report.check("a new key in a fetched set is found by its unknown id, and guesses are not asked for") as check:
        KeySet.keys = [*KeySet.keys, public_jwk(later_key, "c2", "EdDSA")]
        token = jwt.encode(claims("https://c.example", email="ana@c.example"), later_key, "EdDSA", headers={"kid": "c2"})
        wait_for("the new key is known", lambda: chat(gateway, token)[0] == 200, 20, pause=0.5)
        before, began = KeySet.asked, time.monotonic()
        guesses = [jwt.encode(claims("https://c.example", email="ana@c.example"), later_key, "EdDSA", headers={"kid": f"g{number}"})
                   for number in range(50)]
        with ThreadPoolExecutor(10) as pool:
            statuses = {answer[0] for answer in pool.map(lambda guess: chat(gateway, guess), guesses)}
        seconds, fetches = time.monotonic() - began, KeySet.asked - before
        check.figure = f"50 unknown ids, {fetches} fetches in {seconds:.1f} s"
        expect(statuses == {401}, statuses)
        expect(fetches <= seconds + 2, "more than one a second")
    return signed


def own(report, gateway, signed):
    """Our own tokens: read by PyJWT, rotated, limited, cut off."""
    published = gateway.url + "/.well-known/jwks.json"
    # With a cache of the set it asks for an unknown key only half a minute after the last fetch.
    client = jwt.PyJWKClient(published, cache_jwk_set=False, ssl_context=ssl.create_default_context(cafile=gateway.ca))

    def read(token):
        bare = token.removeprefix("tgw_")
        key = client.get_signing_key_from_jwt(bare)
        return key.key_id, jwt.decode(bare, key.key, algorithms=["EdDSA"], audience="tidegate", issuer="tidegate")

    first = gateway.token("--workspace", "acme", "--label", "one", "--subject", "ana", "--ttl", "1d",
                          "--metadata", '{"team":"sea"}')
    with report.check("PyJWKClient verifies our tokens by /.well-known/jwks.json"):
        _, found = read(first)
        expect(found["ws"] == "acme" and found["lbl"] == "one" and found["md"] == {"team": "sea"}, found)
    with report.check("after rotate-key the old key's tokens are good, and both keys are published") as check:
        before, _ = read(first)
        said = gateway.run("token", "rotate-key").stdout.strip()
        second = gateway.token("--workspace", "acme", "--subject", "bo", "--label", "two")
        after, _ = read(second)
        check.figure = said
        expect(after != before and before in said and after in said, f"{before} and {after}")
        expect(read(first)[0] == before, "the old key is gone from the set")
        expect(chat(gateway, first)[0] == 200 and chat(gateway, second)[0] == 200, "one is refused")
        expect(gateway.run("token", "show", first).stdout.endswith("valid here\n"), "show")
    with report.check("the limits of a token lower those of the route"):
        token = gateway.token("--workspace", "acme", "--requests-per-minute", "2", "--tokens-per-minute", "100000",
                              "--max-concurrent-requests", "4", "--priority", "1")
        status, _, headers = chat(gateway, token)
        expect((status, headers["x-ratelimit-limit-requests"]) == (200, "2"), f"{status} {headers}")
        expect(chat(gateway, token)[0] == 200, "the second")
        status, code, headers = chat(gateway, token)
        expect((status, code) == (429, "rate_limit_exceeded"), f"{status} {code}")
        expect(0 < float(headers["retry-after"]) <= 60, "no pause")
    with report.check("`token list` shows what each token was used for"):
        def used():
            listed = json.loads(gateway.run("token", "list", "--json").stdout)
            one = next(token for token in listed if token.get("label") == "two")
            return one["requests"] == 1 and one["completion_tokens"] == 4 and one["last_used"]
        wait_for("the use is shown", used, 10)
    with report.check("`token list` and `token usage` show what tokens of other issuers were used for") as check:
        listed = {token["issuer"]: token for token in json.loads(gateway.run("token", "list", "--json").stdout)}
        fetched = listed["https://c.example"]  # two keys, one subject
        expect((fetched["subject"], fetched["label"], fetched["requests"]) == ("ana", "ana@c.example", 2), fetched)
        expect((fetched["prompt_tokens"], fetched["completion_tokens"]) == (6, 8), fetched)
        expect(listed["scripts"]["jti"] == "j1" and listed["scripts"]["requests"] == 1, listed["scripts"])
        used = json.loads(gateway.run("token", "usage", "--json").stdout)
        names = {(one["label"] or one["subject"], one["issuer"]): one["requests"] for one in used}
        expect(names["ana", "https://a.example"] == 1 and names["ana@c.example", "https://c.example"] == 2, names)
        expect(names["one", None] == 1 and names["two", None] == 1, names)
        check.figure = f"{len(used)} labels"
        gateway.run("token", "revoke", listed["https://b.example"]["jti"])
        expect(chat(gateway, signed["a JWKS file, ES256"])[:2] == (401, "token_revoked"), "the holder is not revoked")
    with report.check("a cut-off ends all tokens of a subject, then of a tenant, also those of others"):
        gateway.run("token", "cut-off", "--workspace", "acme", "--subject", "ana")
        expect(chat(gateway, first)[:2] == (401, "token_revoked"), "ana's")
        expect(chat(gateway, second)[0] == 200, "bo's is untouched")
        gateway.run("token", "cut-off", "--workspace", "acme")
        expect(chat(gateway, second)[:2] == (401, "token_revoked"), "bo's")
        time.sleep(1.1)  # a second is the smallest step of a token's time of issue
        expect(chat(gateway, gateway.token("--workspace", "acme"))[0] == 200, "a new one")
    with report.check("what can't be cut off is told"):
        done = gateway.run("token", "cut-off", "--workspace", "acme", "--subject", "a b", check=False)
        expect(done.returncode == 1 and "subject" in done.stderr, done.stderr)


def main():
    """Runs everything on one gateway."""
    exit_on_sigterm()
    report = Report("tokens")
    upstream, key_set = serve(Upstream), serve(KeySet)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    ed_key, later_key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    KeySet.keys = [public_jwk(ed_key, "c1", "EdDSA")]
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory)
        pem = rsa_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (files / "a.pem").write_bytes(pem)
        (files / "b.json").write_text(json.dumps({"keys": [public_jwk(ec_key, "b1", "ES256")]}))
        (files / "secret").write_text(SECRET)
        (files / "secret").chmod(0o600)
        common = 'audience = "tidegate"\nworkspace = "acme"\n'
        settings = (
            f'[tokens.hs256]\nissuer = "scripts"\nsecret_file = "{files}/secret"\n'
            f'[[tokens.trusted]]\nissuer = "https://a.example"\n{common}public_key = "{files}/a.pem"\nalgorithm = "RS256"\n'
            f'[[tokens.trusted]]\nissuer = "https://b.example"\n{common}jwks = "{files}/b.json"\n'
            f'[[tokens.trusted]]\nissuer = "https://c.example"\n{common}jwks = "http://127.0.0.1:{key_set}/keys"\nlabel_claim = "email"\n'
            '[gpus]\nsource = "none"\n'
        )
        with Tidegate(settings) as gateway:
            gateway.route("open", f'[route]\nname = "open"\npublic = true\n[[upstream]]\nurl = "http://127.0.0.1:{upstream}"\n')
            gateway.start()
            signed = others(report, gateway, (rsa_key, ec_key, ed_key, later_key))
            own(report, gateway, signed)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
