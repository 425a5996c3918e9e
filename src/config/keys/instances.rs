//! The keys of route files that say what is run: `[instance]`, `[[deployment]]`.

use super::{
    Default, Form, GIB, Key, KeyTable, Kind, LIMIT, MILLISECOND, MODEL, NAME, NONE, REQUESTS,
    UP_TO_A_DAY, YEAR, choice, flag, is, number, size, span, table, text, texts, unset, whole,
};
use crate::vllm::options::OptionScope;

const VERSION: Form = Form::new("a version", "0.32.0").pattern("^[0-9][A-Za-z0-9.+-]{0,39}$");
const AUTHOR: Form = Form::new("a name", "acme/ana").chars_max(300);
const WEIGHTS: Form = Form::new("the name or path of a model", "Qwen/Qwen3-8B").chars_max(1024);
const FAULT: Form = Form::new("NAME or NAME:VALUE", "slow-start:10s")
    .pattern("^[A-Za-z0-9.][A-Za-z0-9.-]{0,63}(:[A-Za-z0-9.-]{1,64})?$");
const TIB: u64 = 1024 * GIB;

pub(super) static INSTANCE: KeyTable = KeyTable {
    help: "Models that are run together.",
    keys: &[
        text("name", &NAME, Default::Required, "").option("instance_name"),
        text(
            "workspace",
            &NAME,
            unset("every workspace that has a project of this name"),
            "The one workspace that it is for.",
        ),
        text("project", &NAME, unset("admins alone"), "").option("project"),
        text("queue", &NAME, is("\"local\""), "").option("queue"),
        text(
            "route",
            &NAME,
            unset("that of the file, else one of the instance's name"),
            "",
        )
        .option("route"),
        choice(
            "engine",
            &["vllm", "sim"],
            is("\"vllm\""),
            "vLLM, or the built-in stand-in.",
        ),
        text(
            "vllm_version",
            &VERSION,
            unset("what [engines.vllm] runs"),
            "",
        )
        .option("vllm_version"),
        choice(
            "roll",
            &["idle", "now"],
            is("\"idle\""),
            "When a worker follows changed engine options: once no request is inside, or drained at once.",
        ),
        table("idle", &IDLE),
        text(
            "author",
            &AUTHOR,
            unset("an admin"),
            "Operator who wrote this file over the admin API, which sets it: the instance may then do what operators may do. An admin who takes it out makes the file an admin's.",
        ),
        Key::new(
            "options",
            Kind::Options(OptionScope::Instance),
            NONE,
            "Options of vLLM, for all deployments of the instance.",
        ),
    ],
};

static IDLE: KeyTable = KeyTable {
    help: "What becomes of workers that no one asks.",
    keys: &[
        span("time_limit", (MILLISECOND, YEAR), unset("never"), "").option("idle_time_limit"),
        span(
            "offload_after",
            (MILLISECOND, YEAR),
            unset("never by time"),
            "Idle time after which the weights leave the GPU.",
        ),
        Key::new(
            "levels",
            Kind::Choices(&["cpu", "disk"]),
            unset("as automatic_cpu_offloading and disk_swapping say"),
            "Where weights may go: host memory, dropped to be read from disk again, or whichever takes less time.",
        ),
        span("last_action_report_interval", LIMIT, is("\"10s\""), "")
            .option("last_action_report_interval"),
    ],
};

pub(super) static DEPLOYMENT: KeyTable = KeyTable {
    help: "A model of the instance.",
    keys: &[
        text("model", &WEIGHTS, Default::Required, "").option("model"),
        text("endpoint_name", &MODEL, unset("that of the model"), "").option("endpoint_name"),
        whole("max_concurrent_requests", REQUESTS, unset("no limit"), "")
            .option("max_concurrent_requests"),
        span(
            "max_request_duration",
            LIMIT,
            unset("no limit"),
            "Longest that a request may be with a worker; one that takes longer is ended with an error.",
        ),
        choice(
            "start",
            &["on-demand", "boot"],
            is("\"on-demand\""),
            "Whether the worker starts with its first request or with the gateway.",
        ),
        table("replicas", &REPLICAS),
        flag(
            "keep",
            false,
            "Never stopped to make room for another, never idled out.",
        ),
        Key::new(
            "options",
            Kind::Options(OptionScope::Deployment),
            NONE,
            "Options of vLLM, over those of the instance.",
        ),
        table("sim", &SIM),
    ],
};

static REPLICAS: KeyTable = KeyTable {
    help: "Workers at once, by how many requests wait and run.",
    keys: &[
        whole(
            "requests_each",
            REQUESTS,
            unset("32, or requests_max where that is less"),
            "Requests, waiting and running, from which on another worker is started.",
        ),
        whole(
            "requests_max",
            REQUESTS,
            unset("no limit"),
            "Requests that one worker takes at once; others wait as the route's queue allows.",
        ),
        whole("max", (1, 64), unset("min, at least 1"), "Most workers."),
        whole("min", (0, 64), is("0"), "Workers that are up whoever asks."),
    ],
};

static SIM: KeyTable = KeyTable {
    help: "Speeds and sizes of the stand-in.",
    keys: &[
        span("load", UP_TO_A_DAY, is("\"3s\""), "Time of a start."),
        span("wake", UP_TO_A_DAY, is("\"200ms\""), "Time of a wake."),
        span("sleep", UP_TO_A_DAY, is("\"300ms\""), "Time of a sleep."),
        span(
            "first_token",
            UP_TO_A_DAY,
            is("\"50ms\""),
            "Time to the first token.",
        ),
        number(
            "tokens_per_second",
            (0.001, 1_000_000.0),
            is("50.0"),
            "Tokens a second of one request.",
        ),
        size(
            "weights",
            (0, 1024 * TIB),
            is("\"16GiB\""),
            "Size of the weights.",
        ),
        size(
            "context",
            (0, 1024 * TIB),
            is("\"1GiB\""),
            "Memory beside the weights.",
        ),
        whole(
            "max_model_len",
            (2, 16_777_216),
            is("131072"),
            "Tokens of prompt and answer together.",
        ),
        texts(
            "faults",
            &FAULT,
            is("[]"),
            "Faults that it shows, for tests.",
        ),
    ],
};
