"""The edge: certificates of clients, names of hosts, and a balancer in front."""

import socket
import subprocess
import tempfile
from pathlib import Path

from checks.report import expect, wait_for
from checks.tidegate import Tidegate, free_port
from operation.pki import authority, certificate, curl

#: curl's exit codes for a handshake that the other side ended.
REFUSED = (35, 55, 56)


def clients(report, engine):
    """Certificates of clients, made by OpenSSL and shown by curl."""
    with tempfile.TemporaryDirectory() as place:
        files = Path(place)
        ours, theirs = authority(files, "clients"), authority(files, "strangers")
        known, stranger = certificate(files, "ana", ours), certificate(files, "eve", theirs)
        settings = f'[gpus]\nsource = "none"\n[tls]\nclient_ca = "{ours[0]}"\nclient_auth = "required"\n'
        with Tidegate(settings) as gateway, report.check("clients without a certificate of the authority are not let in") as check:
            gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
            # The harness' own question has no certificate to show.
            gateway._ready = lambda: curl_ready(gateway, known)
            gateway.start()
            token = gateway.token("--workspace", "w1")
            told = {}
            for http in ("--http1.1", "--http2"):
                told[http] = [curl(gateway.url, token, "lab", http, "--cacert", gateway.ca, *shown)[slot] for shown, slot in (
                    (("--cert", known[0], "--key", known[1]), 0), ((), 1), (("--cert", stranger[0], "--key", stranger[1]), 1))]
                expect(told[http][0] == "200", f"{http} with the right one: {told[http][0]}")
                expect(all(code in REFUSED for code in told[http][1:]), f"{http}: {told[http]}")
            check.figure = f"with: 200; without, of a stranger: curl {told['--http2'][1:]}"


def heads(report, engine):
    """`curl -I`, which asks over HTTP/2 where it can."""
    with Tidegate('[gpus]\nsource = "none"\n') as gateway, report.check("curl -I is answered as a GET, without a body") as check:
        gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
        gateway.start()
        token = gateway.token("--workspace", "w1", "--role", "admin")
        asked = [f"{gateway.url}{path}" for path in ("/v1/models", "//v1/models", "/v1/models/lab", "/health", "/readyz", "/v1/nope")]
        asked += [f"https://localhost:{gateway.admin_port}{path}" for path in ("/", "/login", "/api/v1/status", "/api/nope", "/nope")]
        for url in asked:
            for bearer in ((), ("-H", f"authorization: Bearer {token}")):
                told = set()
                for how in (("--http1.1",), ("--http2",), ("--http1.1", "-I"), ("--http2", "-I")):
                    done = subprocess.run(
                        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", gateway.ca, *how, *bearer, url],
                        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
                    told.add(done.stderr.strip() or done.stdout)
                expect(len(told) == 1, f"{url}: {told}")
        check.figure = f"{len(asked)} addresses, HTTP/1.1 and HTTP/2, with a token and without"


def curl_ready(gateway, pair):
    """Whether `/readyz` answers who shows a certificate."""
    if gateway.process.poll() is not None:
        raise AssertionError(gateway.log()[-800:])
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", gateway.ca, "--cert", pair[0], "--key", pair[1],
         f"{gateway.url}/readyz"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout == "200"


def hosts(report, engine):
    """A route with a name of its own, and a certificate for it."""
    with tempfile.TemporaryDirectory() as place:
        files = Path(place)
        signer = authority(files, "hosts")
        chat = certificate(files, "chat", signer, "chat.example.org")
        settings = f'[gpus]\nsource = "none"\n[[tls.certificates]]\ncertificate = "{chat[0]}"\nprivate_key = "{chat[1]}"\n'
        with Tidegate(settings) as gateway:
            gateway.route("lab", f'[route]\nname = "lab"\nhost = "chat.example.org"\npublic = true\n{engine.upstream()}')
            gateway.start()
            token = gateway.token("--workspace", "w1")
            at = f"https://chat.example.org:{gateway.port}"
            there = ("--resolve", f"chat.example.org:{gateway.port}:127.0.0.1", "--cacert", signer[0])
            for http in ("--http1.1", "--http2"):
                with report.check(f"host names: certificate and route by name, 421 where TLS asked for another, curl {http}"):
                    expect(curl(at, token, "lab", http, *there)[0] == "200", "by its name")
                    # TLS asks for localhost, the request for the name.
                    other = curl(gateway.url, token, "lab", http, "--cacert", gateway.ca, "-H", "Host: chat.example.org")
                    expect(other[0] == "421", f"TLS for localhost: {other}")
                    other = curl(at, token, "lab", http, *there, "-H", "Host: localhost")
                    expect(other[0] == "421", f"TLS for the name: {other}")
                    # By its model it is reached as any route is.
                    expect(curl(gateway.url, token, "lab", http, "--cacert", gateway.ca)[0] == "200", "by the model")


def balancers(report, engine):
    """HAProxy and nginx in front, each in its own process."""
    port, front, plain = free_port(), free_port(), free_port()
    listeners = f'proxy_protocol = ["127.0.0.1:{port}"]\ntrusted_proxies = ["127.0.0.1/32"]\nplain_listen = ["127.0.0.1:{plain}"]\n'
    with Tidegate('[gpus]\nsource = "none"\n', gateway_settings=listeners) as gateway, tempfile.TemporaryDirectory() as place:
        text = (gateway.directory / "tidegate.toml").read_text(encoding="utf-8")
        text = text.replace(f'listen = ["127.0.0.1:{gateway.port}"]', f'listen = ["127.0.0.1:{gateway.port}", "127.0.0.1:{port}"]', 1)
        (gateway.directory / "tidegate.toml").write_text(text, encoding="utf-8")
        gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
        gateway.start()
        token = gateway.token("--workspace", "w1")
        with report.check("PROXY v2 from HAProxy: the log names the client behind it, TLS and HTTP/2 end with us") as check:
            settings = Path(place) / "haproxy.cfg"
            settings.write_text(
                f"defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"
                f"listen front\n  bind 127.0.0.1:{front}\n  server one 127.0.0.1:{port} send-proxy-v2\n", encoding="utf-8")
            with _beside("haproxy", "-db", "-f", settings, port=front):
                for http, source in (("--http1.1", "127.0.0.5"), ("--http2", "127.0.0.6")):
                    status, _ = curl(f"https://localhost:{front}", token, "lab", http, "--cacert", gateway.ca, "--interface", source)
                    expect(status == "200", status)
                    wait_for("the line", lambda source=source: gateway.last_access()["peer"] == source, 5)
            check.figure = f"{gateway.last_access()['peer']}"
        with report.check("whoever sends no PROXY header there is closed, and the other listener takes none"):
            status, code = curl(f"https://localhost:{port}", token, "lab", "--cacert", gateway.ca)
            expect(status == "000" and code != 0, f"{status} {code}")
            with socket.create_connection(("127.0.0.1", gateway.port), 10) as direct:
                direct.sendall(b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11\0\x0c" + bytes(12))
                try:
                    expect(b"HTTP" not in direct.recv(1024), "it was answered")
                except ConnectionResetError:
                    pass
            expect(curl(gateway.url, token, "lab", "--cacert", gateway.ca)[0] == "200", "the other listener")
        with report.check("nginx ends TLS in front: X-Forwarded-For of a trusted proxy is believed") as check:
            settings = Path(place) / "nginx.conf"
            web = free_port()
            settings.write_text(
                f"daemon off; error_log stderr; pid {place}/nginx.pid;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {place}/b; "
                f"proxy_temp_path {place}/p; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n"
                f"server {{ listen 127.0.0.1:{web}; location / {{ proxy_pass http://127.0.0.1:{plain}; proxy_http_version 1.1; "
                f'proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}\n', encoding="utf-8")
            with _beside("nginx", "-c", settings, "-p", place, port=web):
                status, _ = curl(f"http://127.0.0.1:{web}", token, "lab", "--interface", "127.0.0.7")
                expect(status == "200", status)
                wait_for("the line", lambda: gateway.last_access()["peer"] == "127.0.0.7", 5)
                status, _ = curl(f"http://127.0.0.1:{plain}", token, "lab", "--interface", "127.0.0.8", "-H", "X-Forwarded-For: 9.9.9.9")
                wait_for("not believed of others", lambda: gateway.last_access()["peer"] == "127.0.0.8", 5)
            check.figure = "127.0.0.7; what another peer claims is not believed"


class _beside:
    """A program beside the check, from when it listens until the block ends."""

    def __init__(self, *command, port):
        self._port = port
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def __enter__(self):
        wait_for("it listens", self._listens, 10)
        return self

    def _listens(self):
        if self._process.poll() is not None:
            self._log.seek(0)
            raise AssertionError(self._log.read().decode()[-600:])
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(10)
        self._log.close()


def run(report, engine):
    """All of it."""
    clients(report, engine)
    hosts(report, engine)
    heads(report, engine)
    balancers(report, engine)
