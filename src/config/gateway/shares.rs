//! The keys for what clients may take: connections, memory, time for a body.

use std::time::Duration;

use super::{MIB, set};
use crate::config::HostBudget;
use crate::config::reader::Reader;
use crate::config::shares::{BodyTimes, Connections, Memory};
use crate::units::Bytes;

/// Least memory that a gateway gets along with.
const BUDGET_MIN: u64 = 16 * MIB;

pub(super) fn connections(table: &mut Reader<'_>, to: &mut Connections) {
    let Connections {
        max,
        per_client,
        per_token,
    } = to;
    let mut whole = |key| {
        let number = table.whole(key);
        number.and_then(|number| usize::try_from(number).ok())
    };
    set(max, whole("connections_max"));
    *per_client = whole("connections_per_client");
    *per_token = whole("connections_per_token");
}

pub(super) fn body_times(table: &mut Reader<'_>, to: &mut BodyTimes) {
    let BodyTimes {
        pause_max,
        time_max,
        rate_min,
    } = to;
    set(pause_max, table.span("body_timeout"));
    set(time_max, table.span("body_time_max"));
    set(rate_min, table.size("body_rate_min"));
}

/// `request_body_max` has been read.
pub(super) fn memory(table: &mut Reader<'_>, to: &mut Memory, request_body_max: u64) {
    let Memory {
        budget,
        per_client,
        per_token,
        per_workspace,
    } = to;
    amount(table, "memory_budget", budget);
    amount(table, "memory_per_client", per_client);
    amount(table, "memory_per_token", per_token);
    amount(table, "memory_per_workspace", per_workspace);
    if let HostBudget::Bytes(bytes) = *budget
        && bytes < request_body_max.saturating_add(MIB)
    {
        let message = format!(
            "a body of request_body_max, {}, would never fit: write {} or more, or lower request_body_max",
            Bytes(request_body_max),
            Bytes(request_body_max.saturating_add(MIB)),
        );
        table.wrong(table.line_of("memory_budget"), "memory_budget", message);
    }
}

fn amount(table: &mut Reader<'_>, key: &'static str, to: &mut HostBudget) {
    let Some(found) = table.parsed::<HostBudget>(key) else {
        return;
    };
    let is_enough = match found.value {
        HostBudget::Share(share) => share >= 0.01,
        HostBudget::Bytes(bytes) => bytes >= BUDGET_MIN,
    };
    if is_enough {
        *to = found.value;
        return;
    }
    let message = format!(
        "this is too little to serve anyone: write 1% or more, or {} or more",
        Bytes(BUDGET_MIN)
    );
    table.wrong(found.line, key, message);
}

/// Reads the time that a connection stays open without a request.
pub(super) fn keep_alive(table: &mut Reader<'_>, to: &mut Duration) {
    set(to, table.span("keep_alive"));
}
