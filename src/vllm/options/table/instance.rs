//! Options at keys of their own: names, placement, version, idle times.

use crate::vllm::options::row::{Form, Group, Home, OptionRow, SetBy, ValueKind, ever, row};

const GATEWAY: &[crate::vllm::options::Versions] =
    &[ever(Form::Tidegate("the gateway acts on it"))];
const LIFECYCLE: &[crate::vllm::options::Versions] =
    &[ever(Form::Tidegate("the lifecycle manager acts on it"))];

pub(super) const ROWS: &[OptionRow] = &[
    row(
        Group::Instance,
        &[(1, "Import Configuration")],
        "import_configuration",
        ValueKind::Text,
        "\"team.json\"",
        "Takes an exported instance back. On the command line: `tidegate launch FILE.json`; over the admin API: POST instances/import.",
    )
    .owner(SetBy::Gateway)
    .home(Home::Command("tidegate launch FILE.json"))
    .spans(GATEWAY),
    row(
        Group::Instance,
        &[(2, "Instance name")],
        "instance_name",
        ValueKind::Text,
        "\"team-llms\"",
        "Name of the instance: letters, digits, '.', '_' and '-'.",
    )
    .owner(SetBy::Gateway)
    .home(Home::Key("instance.name"))
    .spans(GATEWAY),
    row(
        Group::Instance,
        &[(3, "Service Project (Access Control)")],
        "project",
        ValueKind::Text,
        "\"research\"",
        "Project of the instance. A token needs read access to it; without one, only tokens of admins get in.",
    )
    .owner(SetBy::Gateway)
    .home(Home::Key("instance.project"))
    .spans(GATEWAY),
    row(
        Group::Instance,
        &[(4, "Queue")],
        "queue",
        ValueKind::Text,
        "\"local\"",
        "Where the workers of the instance are placed.",
    )
    .default("local")
    .owner(SetBy::Lifecycle)
    .home(Home::Key("instance.queue"))
    .spans(LIFECYCLE),
    row(
        Group::Instance,
        &[(5, "AI Gateway Route")],
        "route",
        ValueKind::Text,
        "\"chat\"",
        "A configured route that becomes the endpoint. Unset: the file's own [route], else an endpoint made for this instance.",
    )
    .owner(SetBy::Gateway)
    .home(Home::Key("instance.route"))
    .spans(GATEWAY),
    row(
        Group::Instance,
        &[(108, "vLLM Version")],
        "vllm_version",
        ValueKind::Text,
        "\"0.32.0\"",
        "The vLLM to run. It is installed into a virtual environment of its own if it is not there yet. Unset: the vLLM that is found.",
    )
    .owner(SetBy::Lifecycle)
    .home(Home::Key("instance.vllm_version"))
    .spans(LIFECYCLE),
    row(
        Group::Idle,
        &[(109, "Idle Time Limit (Hours)")],
        "idle_time_limit",
        ValueKind::Duration,
        "\"4h\"",
        "Idle time after which the worker is stopped. Unset: never.",
    )
    .label("Idle Time Limit")
    .owner(SetBy::Lifecycle)
    .home(Home::Key("instance.idle.time_limit"))
    .spans(LIFECYCLE),
    row(
        Group::Idle,
        &[(110, "Last Action Report Interval (Seconds)")],
        "last_action_report_interval",
        ValueKind::Duration,
        "\"10s\"",
        "How often last activity is reported. A worker that is in use is never idle, whatever was reported.",
    )
    .label("Last Action Report Interval")
    .default("10s")
    .owner(SetBy::Lifecycle)
    .home(Home::Key("instance.idle.last_action_report_interval"))
    .spans(LIFECYCLE),
];
