//! The keys of route files: `[route]`, `[[upstream]]`, `[[name]]`.

use super::instances::{DEPLOYMENT, INSTANCE};
use super::targets::{TARGET, TARGETS, UPSTREAMS};
use super::{
    DAY, Default, FILE, Form, HEADER, KIB, Key, KeyTable, Kind, LIMIT, MILLISECOND, MODEL, NAME,
    NONE, REQUESTS, UP_TO_A_DAY, VARIABLE, choice, flag, is, number, size, span, table, tables,
    text, texts, unset, whole,
};
use std::time::Duration;

/// A route file.
pub static ROUTE_FILE: KeyTable = KeyTable {
    help: "A route, an instance, or both.",
    keys: &[
        table("route", &ROUTE),
        tables("upstream", &UPSTREAM),
        tables("target", &TARGET),
        table("instance", &INSTANCE),
        tables("deployment", &DEPLOYMENT),
        tables("name", &CALLED),
    ],
};

const PATH: Form =
    Form::new("one segment behind a slash", "/chat").pattern("^/[A-Za-z0-9._~-]{1,63}$");
const DESCRIPTION: Form = Form::new("a line of text", "For code, up to 32k tokens").chars_max(256);
const HOST: Form = Form::new("a host name", "chat.example.org");
const MEDIA_HOST: Form = Form::new("a host name or an address", "images.example.org");
const MODELS: Form = Form::new(
    "the name of a model, in which * stands for any characters",
    "qwen-*",
)
.pattern("^[^\\s\"\\\\]+$")
.chars_max(256);
const URL: Form = Form::new(
    "an http://, https:// or unix: address",
    "http://127.0.0.1:8000",
);
const KEY_HEADER: Form = Form::new("the name of a header", "x-api-key");
const HEADER_VALUE: Form = Form::new("a line of text", "2023-06-01").chars_max(1024);
const PREFIX: Form = Form::new("a path that begins with a slash", "/v1beta/openai").pattern("^/");
/// The labels of `openai::api`.
const APIS: [&str; 19] = [
    "chat",
    "completions",
    "responses",
    "messages",
    "count_tokens",
    "embeddings",
    "embed",
    "rerank",
    "score",
    "pooling",
    "classify",
    "tokenize",
    "detokenize",
    "transcriptions",
    "translations",
    "speech",
    "images",
    "image_edits",
    "realtime",
];
const SERVER_NAME: Form = Form::new("a host name or an address", "gpu1.example.org");
const ASKED: Form = Form::new("a path that begins with a slash", "/health").pattern("^/");

const CALLED_SO: Form = Form::new("a name without *", "qwen3-fast")
    .pattern("^[^\\s\"\\\\*]+$")
    .chars_max(256);
const PARAMETER: Form = Form::new("a top-level or dotted key of a request", "logprobs");

static CALLED: KeyTable = KeyTable {
    help: "A name with parameters of its own, for what this file's route or instance serves.",
    keys: &[
        text(
            "name",
            &CALLED_SO,
            Default::Required,
            "What clients ask for; tokens, limits and logs know the request by it.",
        ),
        text(
            "of",
            &MODEL,
            Default::Required,
            "What it stands for: a model of this file's route or instance, or the route where that leads to one.",
        ),
        Key::new(
            "set",
            Kind::Values,
            NONE,
            "Values that requests get, whatever the client wrote.",
        ),
        Key::new(
            "default",
            Kind::Values,
            NONE,
            "Values that requests get where the client wrote none, or null.",
        ),
        texts(
            "drop",
            &PARAMETER,
            NONE,
            "Keys that are taken out of requests.",
        ),
        Key::new(
            "max",
            Kind::Numbers,
            NONE,
            "Numbers above these become these; to bound what clients leave out, give a default too.",
        ),
    ],
};

static ROUTE: KeyTable = KeyTable {
    help: "A public entrance.",
    keys: &[
        text(
            "name",
            &NAME,
            Default::Required,
            "Name of the route, and label of its metrics.",
        ),
        text(
            "path",
            &PATH,
            unset("its name"),
            "First path segment under which it stands.",
        ),
        texts(
            "models",
            &MODELS,
            unset("its name, where it leads to one model"),
            "Names that reach it on /v1.",
        ),
        text(
            "workspace",
            &NAME,
            unset("that of its instances, else every workspace"),
            "The one workspace that it is for.",
        ),
        text(
            "project",
            &NAME,
            unset("that of its instances"),
            "Project that tokens need read access to.",
        ),
        flag(
            "public",
            false,
            "Whether any valid token of any workspace, or of the one that is named, may enter.",
        ),
        text(
            "description",
            &DESCRIPTION,
            unset("none"),
            "What it is, as GET /v1/models tells it.",
        ),
        flag("enabled", true, "Whether it serves."),
        whole(
            "queue_requests_max",
            (0, 100_000),
            is("0"),
            "Requests that may wait for a place; 0 denies at once.",
        ),
        span(
            "queue_wait_max",
            LIMIT,
            is("\"30s\""),
            "Longest wait for a place.",
        ),
        whole(
            "max_concurrent_requests",
            REQUESTS,
            unset("no limit"),
            "Requests at once.",
        ),
        whole(
            "requests_per_minute",
            (1, 10_000_000),
            unset("no limit"),
            "Requests of one token in a minute.",
        ),
        whole(
            "tokens_per_minute",
            (1, 4_000_000_000),
            unset("no limit"),
            "Tokens, in and out, of one token of ours in a minute.",
        ),
        span(
            "keep_alive_max",
            LIMIT,
            unset("keep_alive of a request is passed over"),
            "Longest time that a request may ask its model to stay awake after it, by keep_alive, which is taken out then; against others who want the memory that counts as one request that waits.",
        ),
        Key::new(
            "media",
            Kind::ChoiceOr(&["public", "any", "data", "none"], &MEDIA_HOST),
            Default::Value("\"public\""),
            "From where workers of ours fetch the media of requests: hosts of the internet, any, none (data: only), no media at all, or these hosts.",
        ),
        flag(
            "chat_template",
            false,
            "Whether requests may bring a chat template of their own to workers of ours.",
        ),
        table("timeouts", &TIMEOUTS),
        table("stream", &STREAM),
        text(
            "host",
            &HOST,
            NONE,
            "Host name that is all the route's own, instead of a path; TLS must ask for it too.",
        ),
        table("load_balancing", &LOAD_BALANCING),
        table("retries", &RETRIES),
        table("ejection", &EJECTION),
        table("targets", &TARGETS),
    ],
};

static TIMEOUTS: KeyTable = KeyTable {
    help: "How long its requests may take in each phase.",
    keys: &[
        span(
            "first_byte",
            LIMIT,
            is("\"5m\""),
            "From the request sent to the head of the answer.",
        ),
        span(
            "idle",
            LIMIT,
            is("\"2m\""),
            "Longest silence of the server within an answer.",
        ),
        span(
            "cold_start",
            LIMIT,
            is("\"10m\""),
            "Longest wait for a worker to start or wake.",
        ),
        span(
            "connect",
            LIMIT,
            is("\"5s\""),
            "Limit of a connection to the server.",
        ),
        span(
            "tls_handshake",
            LIMIT,
            is("\"5s\""),
            "Limit of the TLS handshake with the server.",
        ),
    ],
};

static STREAM: KeyTable = KeyTable {
    help: "How its streams are kept alive.",
    keys: &[
        span(
            "keep_alive",
            (Duration::from_secs(10), DAY),
            unset("none"),
            "Silence of the server after which a comment is sent.",
        ),
        span(
            "open_after",
            UP_TO_A_DAY,
            unset("never"),
            "Wait after which a stream is answered with 200, and held with comments.",
        ),
        choice(
            "usage",
            &["at_end", "exact"],
            is("\"at_end\""),
            "\"exact\": vLLM is asked for the tokens in every event, which clients do not see, so that streams that are cut off need no estimate.",
        ),
    ],
};

static LOAD_BALANCING: KeyTable = KeyTable {
    help: "How its requests are spread over several servers.",
    keys: &[
        choice(
            "policy",
            &["least_loaded", "round_robin"],
            is("\"least_loaded\""),
            "\"least_loaded\": of two drawn, by requests in flight, vLLM's waiting and KV cache; or \"round_robin\".",
        ),
        text(
            "session_header",
            &HEADER,
            NONE,
            "Header whose equal values go to one server.",
        ),
        size(
            "prefix",
            (16, 64 * KIB),
            NONE,
            "Bytes of the prompt; prompts that begin alike for so long go to one server, which has them in its cache.",
        ),
        number(
            "load_factor",
            (1.0, 100.0),
            is("1.25"),
            "How many times its share of the requests a server may get by what is bound to it.",
        ),
        flag(
            "engine_figures",
            true,
            "Whether the servers are asked how many requests wait in them.",
        ),
    ],
};

static RETRIES: KeyTable = KeyTable {
    help: "When a request is sent to a further server, before its first byte came.",
    keys: &[
        whole(
            "servers_max",
            (0, 16),
            is("2"),
            "Further servers that one request may be sent to.",
        ),
        number(
            "budget",
            (0.0, 1.0),
            is("0.2"),
            "Share of the requests that may be sent again.",
        ),
        Key::new(
            "on",
            Kind::Choices(&["unreachable", "broken", "502", "503", "504"]),
            is("[\"unreachable\", \"502\", \"503\"]"),
            "After what; what \"broken\" sends again may be answered twice.",
        ),
    ],
};

static EJECTION: KeyTable = KeyTable {
    help: "When a server that fails is left out for a while; never the last.",
    keys: &[
        whole(
            "failures",
            (0, 1_000),
            is("5"),
            "Failures in a row; 0 for never.",
        ),
        span(
            "time",
            LIMIT,
            is("\"5s\""),
            "How long it is left out the first time; it doubles each further time.",
        ),
        span("time_max", LIMIT, is("\"5m\""), "How long at most."),
    ],
};

static UPSTREAM: KeyTable = KeyTable {
    help: "A server that someone else runs.",
    keys: &[
        text("url", &URL, Default::Required, "Where the server listens."),
        UPSTREAMS,
        flag(
            "any_address",
            false,
            "Whether it may be link-local, a cloud's metadata service, or this gateway itself.",
        ),
        text(
            "model",
            &MODEL,
            unset("passed as it came"),
            "Name of the model that the server knows.",
        ),
        text(
            "api_key_env",
            &VARIABLE,
            NONE,
            "Variable that holds the server's key.",
        ),
        text(
            "api_key_file",
            &FILE,
            NONE,
            "File that holds the server's key; read again when it changes.",
        ),
        text(
            "api_key_header",
            &KEY_HEADER,
            unset("authorization, as a bearer token"),
            "Header that carries the key, as it is.",
        ),
        Key::new(
            "headers",
            Kind::Map("anthropic-version", &HEADER_VALUE),
            NONE,
            "Headers that the server is told in every request, in place of the client's; no secrets.",
        ),
        Key::new(
            "headers_env",
            Kind::Map("x-team-key", &VARIABLE),
            NONE,
            "The same, each with the variable that holds its value.",
        ),
        Key::new(
            "headers_file",
            Kind::Map("x-team-key", &FILE),
            NONE,
            "The same, each with the file that holds its value; read again when it changes.",
        ),
        text(
            "path_prefix",
            &PREFIX,
            unset("/v1"),
            "What stands in place of /v1 in the server's paths.",
        ),
        Key::new(
            "apis",
            Kind::Choices(&APIS),
            unset("as its answers show"),
            "APIs that the server serves: others are refused, or go to another server of the route.",
        ),
        text(
            "ca",
            &FILE,
            unset("the system's authorities"),
            "PEM file of the authorities that may have signed its certificate.",
        ),
        text(
            "tls_server_name",
            &SERVER_NAME,
            unset("that in url"),
            "Name that its certificate must have.",
        ),
        whole(
            "max_concurrent_requests",
            REQUESTS,
            unset("no limit of its own"),
            "Requests at once.",
        ),
        table("health_check", &HEALTH_CHECK),
        span(
            "keep_alive",
            (Duration::from_millis(10), Duration::from_hours(1)),
            is("\"5s\""),
            "How long it keeps an idle connection; the gateway's are put away before.",
        ),
    ],
};

static HEALTH_CHECK: KeyTable = KeyTable {
    help: "How it is asked whether it is well.",
    keys: &[
        text(
            "path",
            &ASKED,
            Default::Required,
            "Path that is asked for; 2xx means well.",
        ),
        span(
            "interval",
            (Duration::from_millis(100), Duration::from_hours(1)),
            is("\"5s\""),
            "Time between two questions.",
        ),
        span(
            "timeout",
            (MILLISECOND, Duration::from_mins(1)),
            is("\"2s\""),
            "Limit of an answer.",
        ),
        whole(
            "failures",
            (1, 100),
            is("3"),
            "Bad answers in a row after which it is left out.",
        ),
        whole(
            "successes",
            (1, 100),
            is("2"),
            "Good answers in a row after which it is taken in again.",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::api::Api;

    #[test]
    fn the_apis_of_the_table_are_those_that_there_are() {
        let all = Api::ALL.into_iter().chain([Api::Realtime]);
        assert!(all.map(Api::label).eq(APIS));
    }
}
