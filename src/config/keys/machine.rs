//! The keys of `tidegate.toml` about what is run: devices, workers, queues, vLLM.

use super::{
    BUDGET, DAY, Default, FILE, Form, GIB, KIB, Key, KeyTable, Kind, LIMIT, MIB, NONE, SECOND,
    UP_TO_A_DAY, choice, flag, is, number, size, span, table, tables, text, texts, unset, whole,
};
use std::time::Duration;

const PATTERN: Form = Form::new("a name, in which * stands for any characters", "Qwen/*");
const PROGRAM: Form = Form::new("a command, or its path or that of a venv", "/opt/vllm");
const INDEX: Form = Form::new(
    "the address of a package index",
    "https://pypi.example.org/simple",
);
const ARGUMENT: Form = Form::new("an argument", "--pre");
const VARIABLES: Form =
    Form::new("the name of a variable, or how names begin", "AWS_*").pattern("^[A-Za-z0-9_]+\\*?$");
const WHOLE_PATH: Form = Form::new("a whole path", "/scratch").pattern("^/");

pub(super) static GPUS: KeyTable = KeyTable {
    help: "Devices that workers run on.",
    keys: &[
        choice("source", &["auto", "nvml", "none", "simulated"], is("\"auto\""), "\"auto\": NVIDIA's, if its driver is there; \"nvml\" insists on it; \"none\" runs on the CPU; \"simulated\" pretends.").common(),
        tables("simulated", &DEVICE),
        text("library", &FILE, is("\"libnvidia-ml.so.1\""), "Library of NVIDIA's driver: a name that the system looks up, or a path."),
        span("poll", (Duration::from_millis(10), Duration::from_mins(1)), is("\"2s\""), "How often it is seen what others use of the GPUs, which workers then do not get."),
        text("host_memory_budget", &BUDGET, is("\"50%\""), "Main memory for weights that sleep in it; never swap.").common(),
    ],
};

static DEVICE: KeyTable = KeyTable {
    help: "A pretended device; only with source = \"simulated\".",
    keys: &[size(
        "memory",
        (MIB, 1024 * GIB),
        Default::Required,
        "Its memory.",
    )],
};

pub(super) static PLACEMENT: KeyTable = KeyTable {
    help: "Which models leave the GPUs for which; try values with `tidegate simulate`.",
    keys: &[
        number(
            "quantum",
            (0.0, 1000.0),
            is("4.0"),
            "Switch costs that a busy model stays for.",
        ),
        number(
            "patience",
            (0.0, 1000.0),
            is("2.0"),
            "Switch costs that a request waits for before a busy model leaves for it.",
        ),
        span(
            "wait_bound",
            LIMIT,
            is("\"2m\""),
            "Wait after which a request goes first, and its GPUs are kept for it.",
        )
        .common(),
        number(
            "switch_share_max",
            (0.0, 1.0),
            is("1.0"),
            "Largest share of time spent switching; 0.1 makes people wait for it.",
        )
        .common(),
        flag(
            "prefetch",
            false,
            "Wake the sleeper that a token is likely to ask next, if only idle ones leave for it.",
        ),
    ],
};

pub(super) static WORKERS: KeyTable = KeyTable {
    help: "Bounds of every worker.",
    keys: &[
        flag("stop_on_exit", false, "Whether workers end with the gateway; else the next start adopts them."),
        span("start_timeout", LIMIT, is("\"30m\""), "Limit from launch to ready, with what the engine itself downloads.").common(),
        span("call_timeout", LIMIT, is("\"2m\""), "Limit of a sleep or wake."),
        span("drain_timeout", UP_TO_A_DAY, is("\"10m\""), "How long requests may finish before a worker is stopped.").common(),
        span("stop_grace", UP_TO_A_DAY, is("\"30s\""), "Time between SIGTERM and SIGKILL."),
        span("backoff", LIMIT, is("\"1s\""), "First pause after a failure; it doubles with each further one."),
        whole("failures_max", (1, 1000), is("5"), "Failures in a row after which only an operator starts a worker again.").common(),
        span("stable_after", LIMIT, is("\"1m\""), "How long a worker must serve before its failures are forgiven."),
        span("stall_timeout", LIMIT, is("\"10m\""), "How long a start may go on without a line of log, work or a byte read."),
        flag("cgroups", true, "Whether each worker gets a control group, where this process may make some."),
        size("memory_max", (64 * MIB, 1024 * 1024 * GIB), unset("no limit"), "Main memory of each worker; needs control groups (in systemd: Delegate=yes).").common(),
        span("probe_interval", UP_TO_A_DAY, is("\"30s\""), "How often an idle worker is asked for one token, and a busy one for its health; \"0s\": never.").common(),
        span("probe_timeout", LIMIT, is("\"20s\""), "Limit of such a question."),
        whole("probe_failures", (1, 1000), is("3"), "Such questions without an answer in a row after which a worker is replaced."),
        span("scale_up_after", UP_TO_A_DAY, is("\"2s\""), "How long requests must be too many before a further replica is started."),
        span("scale_down_after", LIMIT, is("\"2m\""), "How long they must be few enough before one is drained."),
        choice("sandbox", &["auto", "required", "off"], is("\"auto\""), "Whether the kernel (Landlock) keeps workers from keys, state and route files: where it can, or else no worker starts, or never.").common(),
        texts("environment", &VARIABLES, is("[]"), "Variables of the gateway's environment that workers get beside those of the system, the hub and the engine."),
        texts("writable", &WHOLE_PATH, is("[]"), "Directories that workers may write to beside caches, their own temporary directory and shared memory."),
        size("log_bytes_max", (64 * KIB, 16 * GIB), is("\"16MiB\""), "Size at which a worker's log is moved aside; the one before is kept."),
    ],
};

pub(super) static MODELS: KeyTable = KeyTable {
    help: "Models that are fetched, by `tidegate pull` and before workers start.",
    keys: &[
        text(
            "disk_budget",
            &BUDGET,
            unset("no limit"),
            "What those that were fetched may take of the disk together; a fetch that would take more is refused before it begins.",
        ),
        text(
            "disk_free_min",
            &BUDGET,
            is("\"5%\""),
            "What stays free of the disk: a fetch that would leave less is refused before it begins.",
        ),
        flag(
            "fetch_first",
            true,
            "Whether a model of the hub that is not whole in its cache is fetched before its worker asks for GPUs; else its engine fetches it, with GPUs in hand.",
        ),
        whole(
            "fetches_max",
            (1, 64),
            is("4"),
            "How many models are fetched so at once; further ones wait for their turn.",
        ),
        flag(
            "keep_fetching",
            true,
            "Whether such a fetch goes on once no request waits for its model any more; if not, the next goes on from there.",
        ),
        flag(
            "prefetch",
            false,
            "Whether that is done as soon as a file names the model, one after the other, while none is fetched that is asked for.",
        ),
        text(
            "python",
            &PROGRAM,
            unset("that of the vllm of [engines.vllm] command"),
            "The Python whose huggingface_hub `tidegate pull` fetches with; deployments are fetched by that of their engine.",
        ),
    ],
};

pub(super) static QUEUE: KeyTable = KeyTable {
    help: "A queue that instances may name; \"local\", this machine, is always one.",
    keys: &[choice(
        "launcher",
        &["process"],
        Default::Required,
        "How workers are started: as processes of this machine.",
    )],
};

pub(super) static WORKSPACE: KeyTable = KeyTable {
    help: "Limits of a workspace, on all routes together.",
    keys: &[whole(
        "max_concurrent_requests",
        (1, 1_000_000),
        unset("no limit"),
        "Requests that it may have at work at once.",
    )],
};

pub(super) static ENGINES: KeyTable = KeyTable {
    help: "",
    keys: &[table("vllm", &VLLM)],
};

static VLLM: KeyTable = KeyTable {
    help: "Where vLLM comes from.",
    keys: &[
        text("command", &PROGRAM, is("\"vllm\""), "The vllm to run: a command, a venv or a wrapper; `vllm_version` in an instance installs others.").common(),
        text("python", &PROGRAM, is("\"python3\""), "The Python that makes venvs for versions that are installed on demand."),
        text("index_url", &INDEX, unset("pip's own"), "Package index that versions are installed from."),
        texts("pip_arguments", &ARGUMENT, is("[]"), "Further arguments of such an installation."),
        span("install_timeout", (SECOND, DAY), is("\"2h\""), "Limit of such an installation."),
        Key::new("versions", Kind::Map("0.11.0", &PROGRAM), NONE, "Venvs or commands that serve a version, by its number, instead of an installation."),
        table("allowed", &ALLOWED),
    ],
};

static ALLOWED: KeyTable = KeyTable {
    help: "What workers may load. Absent: files of admins whatever they name, those that operators launch what admins named already.",
    keys: &[
        texts(
            "models",
            &PATTERN,
            unset("any for admins; what admins named already for operators"),
            "Models, adapters and tokenizers by name.",
        )
        .common(),
        texts(
            "directories",
            &WHOLE_PATH,
            is("[]"),
            "Directories of models, tokenizers, adapters, templates and media.",
        ),
        texts(
            "plugins",
            &WHOLE_PATH,
            is("[]"),
            "Python files with parsers, or directories of such.",
        ),
        flag(
            "trust_remote_code",
            false,
            "Whether models may bring code of their own.",
        ),
        flag(
            "code",
            false,
            "Whether arguments may name Python code to load.",
        ),
        flag(
            "raw",
            false,
            "Whether operators may write `cli`, `model_overrides` and `config_overrides`.",
        )
        .common(),
    ],
};
