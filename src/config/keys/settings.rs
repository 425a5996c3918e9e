//! The keys of `tidegate.toml`.

use super::machine::{ENGINES, GPUS, MODELS, PLACEMENT, QUEUE, WORKERS, WORKSPACE};
use super::{
    BUDGET, DAY, DIRECTORY, Default, FILE, Form, GIB, HEADER, KIB, KeyTable, LIMIT, MIB, NAME,
    NONE, SECOND, UP_TO_A_DAY, VARIABLE, WORDS, choice, flag, is, named, number, size, span, table,
    tables, text, texts, unset, whole,
};

/// `tidegate.toml`
pub static SETTINGS: KeyTable = KeyTable {
    help: "",
    keys: &[
        table("gateway", &GATEWAY),
        table("tls", &TLS),
        table("cors", &CORS),
        table("telemetry", &TELEMETRY),
        table("tokens", &TOKENS),
        table("admin", &ADMIN),
        table("metrics", &METRICS),
        table("gpus", &GPUS),
        table("placement", &PLACEMENT),
        table("workers", &WORKERS),
        table("models", &MODELS),
        named("queues", &QUEUE),
        named("workspaces", &WORKSPACE),
        table("engines", &ENGINES),
    ],
};

const LISTEN: Form = Form::new("an address with its port", "127.0.0.1:8443");
const SWITCHED: Form = Form::new("an address with its port, or \"off\"", "off");
const NETWORK: Form = Form::new("an address or a range of addresses", "10.0.0.0/8");
const ORIGIN: Form = Form::new("an origin, or \"*\"", "https://chat.example.org");
const ANY_HEADER: Form = Form::new("the name of a header, or \"*\"", "x-session-id");
const ADDRESS: Form = Form::new("an http:// or https:// address", "http://localhost:4318");
const LOG: Form = Form::new("the path of a file, or \"stdout\"", "access.log");
const OTLP_HEADERS: Form = Form::new("the name of an environment variable", "OTLP_HEADERS");
const JWKS: Form = Form::new(
    "an https:// address or the path of a file",
    "https://idp.example.org/.well-known/jwks.json",
);
const CLAIM: Form = Form::new("the name of a claim", "groups");
const ROLE: Form = Form::new("\"user\"", "user").pattern("^user$");

const ALGORITHMS: &[&str] = &[
    "EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
];
const ROLES: &[&str] = &["user", "operator", "workspace-admin", "admin"];

static GATEWAY: KeyTable = KeyTable {
    help: "Where clients come in, and what all of them and each may take.",
    keys: &[
        texts("listen", &LISTEN, is("[\"127.0.0.1:8443\"]"), "Addresses of the HTTPS listeners: HTTP/1.1 and HTTP/2.").common(),
        texts("plain_listen", &LISTEN, is("[]"), "Addresses of plain HTTP listeners, for use behind another TLS terminator.").common(),
        text("routes", &DIRECTORY, is("\"routes.d\""), "Directory of the route files.").common(),
        text("state", &DIRECTORY, is("\".tidegate\""), "Directory of the store, the logs and the sockets.").common(),
        size("request_body_max", (KIB, 4 * GIB), is("\"64MiB\""), "Largest request body, unpacked.").common(),
        whole("connections_max", (1, 1_000_000), is("10000"), "Connections at once; at more, the one that is idle for longest is closed for the next.").common(),
        whole("connections_per_client", (1, 1_000_000), unset("half of connections_max"), "Connections of one address (of IPv6: one /64), or of one client of a trusted proxy."),
        whole("connections_per_token", (1, 1_000_000), unset("half of connections_max"), "Connections with requests of one token."),
        text("memory_budget", &BUDGET, is("\"50%\""), "Memory that is held for clients, of the machine's or the control group's; beyond it requests get 503 `overloaded`.").common(),
        text("memory_per_client", &BUDGET, is("\"50%\""), "The most of memory_budget that one address may take."),
        text("memory_per_token", &BUDGET, is("\"25%\""), "The most of memory_budget that one token may take."),
        text("memory_per_workspace", &BUDGET, is("\"50%\""), "The most of memory_budget that one workspace may take."),
        span("body_timeout", LIMIT, is("\"30s\""), "Longest pause in a request body.").common(),
        span("body_time_max", LIMIT, is("\"10m\""), "Longest time for a whole request body."),
        size("body_rate_min", (1, GIB), is("\"1KiB\""), "Bytes a second that a request body comes with at least."),
        span("keep_alive", (SECOND, DAY), is("\"75s\""), "How long an idle connection stays open: longer than a balancer keeps its own (nginx and AWS 60 s, Google 600 s).").common(),
        span("handshake_timeout", LIMIT, is("\"10s\""), "Limit of a TLS handshake."),
        span("header_timeout", LIMIT, is("\"30s\""), "Limit for the head of a request to arrive."),
        span("write_timeout", LIMIT, is("\"2m\""), "Longest time that a client may leave an answer unread."),
        span("shutdown_timeout", UP_TO_A_DAY, is("\"30s\""), "How long open streams may go on after a stop was asked for.").common(),
        span("unready_time", UP_TO_A_DAY, is("\"0s\""), "How long /readyz refuses before the listeners close."),
        text("access_log", &LOG, unset("standard output; logs/access.log in the state directory where that is a terminal"), "File of the access log, opened anew at SIGHUP, SIGUSR1 and once another file stands there; \"stdout\" for standard output."),
        size("access_log_bytes_max", (64 * KIB, 16 * GIB), is("\"64MiB\""), "Size at which an access log in the state directory is moved aside; elsewhere it never is."),
        whole("access_log_files", (0, 1_000), is("4"), "Access logs that were moved aside and are kept."),
        texts("trusted_proxies", &NETWORK, is("[]"), "Proxies whose X-Forwarded-For (else Forwarded) names the client.").common(),
        texts("proxy_protocol", &LISTEN, is("[]"), "Listeners on which every connection begins with a PROXY v2 header of those proxies."),
        whole("headers_max", (16, 1_000), is("64"), "Headers of one request."),
        // hyper's buffer has 8 KiB at least.
        size("head_bytes_max", (8 * KIB, MIB), is("\"64KiB\""), "Bytes of a request's head."),
        size("target_bytes_max", (256, 64 * KIB), is("\"8KiB\""), "Bytes of a request's target: path and query."),
        whole("streams_max", (1, 10_000), is("128"), "Streams of one HTTP/2 connection at once."),
        texts("forward_headers", &HEADER, is("[]"), "Headers of clients that servers get beside the few that they need."),
    ],
};

static TLS: KeyTable = KeyTable {
    help: "The server's certificates, and those of clients.",
    keys: &[
        text(
            "certificate",
            &FILE,
            is("\"certs/server.pem\""),
            "PEM chain, the server's own certificate first; made at the first start where it is missing.",
        ),
        text(
            "private_key",
            &FILE,
            is("\"certs/server.key\""),
            "PEM key of that certificate.",
        ),
        tables("certificates", &PAIR),
        text(
            "client_ca",
            &FILE,
            unset("no certificate is asked for"),
            "PEM file of the authorities that sign the certificates of clients.",
        ),
        choice(
            "client_auth",
            &["required", "optional"],
            unset("\"required\" where client_ca is set"),
            "Whether a client may come without a certificate.",
        ),
    ],
};

static PAIR: KeyTable = KeyTable {
    help: "A further certificate, for the DNS names in it.",
    keys: &[
        text(
            "certificate",
            &FILE,
            Default::Required,
            "PEM chain, the server's own certificate first.",
        ),
        text(
            "private_key",
            &FILE,
            Default::Required,
            "PEM key of that certificate.",
        ),
    ],
};

static CORS: KeyTable = KeyTable {
    help: "Web pages that may call the gateway from a browser.",
    keys: &[
        texts(
            "origins",
            &ORIGIN,
            is("[]"),
            "Origins of the pages, as \"https://chat.example.org\"; \"*\" for any.",
        ),
        texts(
            "headers",
            &ANY_HEADER,
            is("[]"),
            "Request headers that pages may send beside those of the SDKs; \"*\" for any.",
        ),
        flag(
            "credentials",
            false,
            "Whether browsers may send credentials of their own, such as certificates.",
        ),
        span(
            "max_age",
            UP_TO_A_DAY,
            is("\"10m\""),
            "How long a browser may remember the answer.",
        ),
    ],
};

static TELEMETRY: KeyTable = KeyTable {
    help: "Traces, with OpenTelemetry's attributes for generative AI.",
    keys: &[
        text(
            "otlp_endpoint",
            &ADDRESS,
            unset("no traces"),
            "Collector that takes OpenTelemetry traces over HTTP.",
        ),
        text(
            "otlp_ca",
            &FILE,
            unset("the system's authorities"),
            "PEM file of the authorities that may have signed the collector's certificate.",
        ),
        text(
            "otlp_headers_env",
            &OTLP_HEADERS,
            NONE,
            "Variable with headers for the collector: \"key=value,key=value\".",
        ),
        text(
            "otlp_headers_file",
            &FILE,
            NONE,
            "File with such headers, in place of the variable.",
        ),
        text(
            "service_name",
            &WORDS,
            is("\"tidegate\""),
            "Name of this gateway in traces.",
        ),
        number(
            "sample",
            (0.0, 1.0),
            is("1.0"),
            "Share of requests that are traced, where the client's traceparent does not say.",
        ),
    ],
};

static TOKENS: KeyTable = KeyTable {
    help: "What tokens are signed with, and whose others are accepted.",
    keys: &[
        text("issuer", &WORDS, is("\"tidegate\""), "Claim `iss` of the gateway's own tokens."),
        text("audience", &WORDS, is("\"tidegate\""), "Claim `aud` of the gateway's own tokens."),
        text("signing_key", &FILE, is("\"certs/tokens.key\""), "Ed25519 key, PEM; its public half stands at /.well-known/jwks.json.").common(),
        texts("previous_keys", &FILE, unset("what `tidegate token rotate-key` keeps beside the signing key"), "Keys that signed before, and still verify."),
        choice("lost_store", &["refuse", "accept"], is("\"refuse\""), "What becomes of tokens that were issued before the store of revocations was lost; \"accept\" raises an alarm.").common(),
        table("hs256", &HS256),
        tables("trusted", &TRUSTED),
    ],
};

static HS256: KeyTable = KeyTable {
    help: "A secret that others sign tokens of the gateway's own shape with.",
    keys: &[
        text(
            "issuer",
            &WORDS,
            Default::Required,
            "Claim `iss` of their tokens.",
        ),
        text(
            "kid",
            &WORDS,
            is("\"hs256\""),
            "Key id in the head of their tokens.",
        ),
        choice(
            "role_max",
            ROLES,
            is("\"user\""),
            "Highest role that their tokens may have.",
        ),
        text(
            "secret_file",
            &FILE,
            unset("secret_env must be there"),
            "File that holds the secret.",
        ),
        text(
            "secret_env",
            &VARIABLE,
            unset("secret_file must be there"),
            "Variable that holds the secret.",
        ),
    ],
};

static TRUSTED: KeyTable = KeyTable {
    help: "A further issuer, whose tokens are accepted from users.",
    keys: &[
        text(
            "issuer",
            &WORDS,
            Default::Required,
            "Claim `iss` of its tokens.",
        ),
        text(
            "audience",
            &WORDS,
            Default::Required,
            "Claim `aud` of its tokens.",
        ),
        text(
            "jwks",
            &JWKS,
            unset("public_key must be there"),
            "Its keys: the address or the file of a JWKS.",
        ),
        text(
            "public_key",
            &FILE,
            unset("jwks must be there"),
            "PEM file of its one public key.",
        ),
        choice(
            "algorithm",
            ALGORITHMS,
            unset("must be there with public_key"),
            "Algorithm of public_key.",
        ),
        text(
            "ca",
            &FILE,
            unset("the system's authorities"),
            "PEM file of the authorities that may have signed the certificate of jwks.",
        ),
        text(
            "workspace",
            &NAME,
            unset("workspace_claim must be there"),
            "Workspace of its tokens.",
        ),
        text(
            "workspace_claim",
            &CLAIM,
            unset("workspace must be there"),
            "Claim that names the workspace of a token.",
        ),
        texts(
            "projects",
            &NAME,
            is("[]"),
            "Projects that all its tokens may use.",
        ),
        text(
            "projects_claim",
            &CLAIM,
            NONE,
            "Claim that names further projects of a token.",
        ),
        text(
            "label_claim",
            &CLAIM,
            NONE,
            "Claim with the label that usage is listed by.",
        ),
        text(
            "role",
            &ROLE,
            is("\"user\""),
            "Role of its tokens; operators and admins get theirs from the gateway itself.",
        ),
    ],
};

static ADMIN: KeyTable = KeyTable {
    help: "Dashboard and admin API.",
    keys: &[
        text(
            "listen",
            &SWITCHED,
            is("\"127.0.0.1:9443\""),
            "Address of their HTTPS listener; \"off\" for none.",
        )
        .common(),
        text(
            "socket",
            &FILE,
            is("\".tidegate/admin.sock\""),
            "Unix socket that the command line uses.",
        ),
    ],
};

static METRICS: KeyTable = KeyTable {
    help: "Prometheus.",
    keys: &[text(
        "listen",
        &SWITCHED,
        is("\"127.0.0.1:9464\""),
        "Address of the plain HTTP listener of /metrics, /healthz and /readyz; \"off\" for none.",
    )
    .common()],
};
