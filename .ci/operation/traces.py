"""Traces as OpenTelemetry's own decoder reads them."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from checks.report import expect, wait_for
from checks.tidegate import Tidegate
from operation.pki import curl
from traffic.engines import MODEL

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
#: Ids are hexadecimal in OTLP's JSON, and base64 in that of protobuf.
IDS = ("traceId", "spanId", "parentSpanId")


class Collector(BaseHTTPRequestHandler):
    """Takes spans; the first call is refused, as a collector under load does."""

    protocol_version = "HTTP/1.1"
    bodies, headers_seen, refusals = [], [], 1

    def do_POST(self):  # the name that http.server asks for
        body = self.rfile.read(int(self.headers["content-length"]))
        refused = type(self).refusals > 0
        type(self).refusals -= refused
        if not refused:
            self.bodies.append((self.path, self.headers["content-type"], body))
        self.headers_seen.append(self.headers["x-tenant"])
        self.send_response(503 if refused else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def decoded(body):
    """The request by protobuf's decoder, to which a field of another name or type is an error."""
    def with_base64(value):
        if isinstance(value, list):
            return [with_base64(one) for one in value]
        if isinstance(value, dict):
            return {key: base64.b64encode(bytes.fromhex(one)).decode() if key in IDS else with_base64(one)
                    for key, one in value.items()}
        return value

    return json_format.ParseDict(with_base64(json.loads(body)), ExportTraceServiceRequest())


def _plain(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def run(report, engine):
    """One request as a stream, one refused."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.handle_error = lambda *_: None  # at the end a gateway is killed
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = (f'[gpus]\nsource = "none"\n[telemetry]\notlp_endpoint = "http://127.0.0.1:{server.server_port}"\n'
                'otlp_headers_env = "OTLP_HEADERS"\n')
    with Tidegate(settings, {"OTLP_HEADERS": "x-tenant=sea"}) as gateway:
        gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
        gateway.start()
        token = gateway.token("--workspace", "w1", "--label", "nightly")
        with report.check("traces: OpenTelemetry's decoder reads them, and a collector's refusal loses none") as check:
            parent = f"traceparent: 00-{TRACE}-{PARENT}-01"
            status, _ = curl(gateway.url, token, "lab", "--cacert", gateway.ca, "-H", parent)
            expect(status == "200", status)
            spans = {}

            def arrived():
                for path, kind, body in Collector.bodies:
                    expect((path, kind) == ("/v1/traces", "application/json"), f"{path} {kind}")
                    for resource in decoded(body).resource_spans:
                        named = _plain(resource.resource.attributes)
                        expect(named["service.name"] == "tidegate", f"{named}")
                        spans.update({span.kind: span for scope in resource.scope_spans for span in scope.spans})
                return len(spans) == 2

            wait_for("two spans", arrived, 20)
            served, called = spans[2], spans[3]  # server, client
            expect({served.trace_id.hex(), called.trace_id.hex()} == {TRACE}, "another trace")
            expect(served.parent_span_id.hex() == PARENT and called.parent_span_id == served.span_id, "no chain")
            expect(served.start_time_unix_nano <= called.start_time_unix_nano <= called.end_time_unix_nano
                   <= served.end_time_unix_nano, "not within each other")
            expect(set(Collector.headers_seen) == {"sea"}, f"{Collector.headers_seen}")
            check.figure = f"{served.name!r} and {called.name!r} of {token[:4]}…"
        with report.check("traces: the gen_ai attributes are what was asked and used") as check:
            told = _plain(called.attributes)
            for name, value in {
                "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "lab",
                "gen_ai.response.model": MODEL, "gen_ai.usage.output_tokens": 2, "server.address": engine.label,
            }.items():
                expect(told.get(name) == value, f"{name} is {told.get(name)!r}")
            expect(told["gen_ai.usage.input_tokens"] > 0, f"{told}")
            ours = _plain(served.attributes)
            expect((ours["http.response.status_code"], ours["http.route"]) == (200, "/v1/chat/completions"), f"{ours}")
            expect(ours["tidegate.token.label"] == "nightly" and ours["tidegate.outcome"] == "ok", f"{ours}")
            expect("Hello!" not in str(spans) and token not in str(spans), "a prompt or a token is told")
            check.figure = f"{told['gen_ai.usage.input_tokens']}+{told['gen_ai.usage.output_tokens']} tokens"
    server.shutdown()
