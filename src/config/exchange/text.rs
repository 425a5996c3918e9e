//! Tables as TOML: laid over what a person wrote, or as a new text.
//!
//! Comments of a text that is there, the order of its keys, its spacing and the way in
//! which an unchanged value is written stay. What is taken out leaves the comments above
//! it behind; those on its own line, and those inside a table that goes, go with it. Of
//! keys, only their order in a new table is known here.

mod rest;

use std::borrow::Cow;

use serde_json::{Map, Value as Json};
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value as Toml,
};

use self::rest::Rest;
use super::read_tables;
use crate::config::keys::{self, Kind};

/// Content that may stand in a table.
#[derive(Clone, Copy)]
enum Room {
    /// Keys of ours.
    Keys(&'static keys::KeyTable),
    /// Options of an engine by their names.
    Options,
    /// Anything.
    Free,
}

const FILE: Room = Room::Keys(&keys::ROUTE_FILE);

impl Room {
    /// Content that may stand behind a key.
    fn of(self, key: &str) -> Self {
        let Self::Keys(table) = self else {
            return Self::Free;
        };
        match table.key(key).map(|row| &row.kind) {
            Some(Kind::Table(inner) | Kind::Tables(inner)) => Self::Keys(inner),
            Some(Kind::Options(_)) => Self::Options,
            _ => Self::Free,
        }
    }

    /// Keys that a table sets, with their values, in the order in which a new one is written.
    fn ordered(self, table: &Map<String, Json>) -> Vec<(&str, &Json)> {
        let mut all: Vec<_> = table.iter().map(|(k, v)| (k.as_str(), v)).collect();
        // A null of ours is a key that is not there; one within a value has a meaning.
        if !matches!(self, Self::Free) {
            all.retain(|(_, value)| !value.is_null());
        }
        if let Self::Keys(known) = self {
            all.sort_by_key(|(key, _)| {
                let place = known.names().position(|name| name == *key);
                place.unwrap_or(usize::MAX)
            });
        }
        all
    }
}

/// The text with these tables instead of its own; `None` when TOML has no form for them.
pub(super) fn over(text: &str, tables: &Map<String, Json>) -> Option<String> {
    let (_, old) = read_tables(text.as_bytes()).ok()?;
    if says_same(&old, tables, FILE) {
        return Some(text.to_owned());
    }
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    };
    let mut document: DocumentMut = body.parse().ok()?;
    let mut rest = Rest::default();
    let left = lay(document.as_table_mut(), true, &old, tables, FILE, &mut rest)?;
    rest.keep(0, left);
    rest.settle(&mut document);
    let lines = document.to_string();
    let lines = match body.matches('\n').count() {
        // The writer knows line feeds alone.
        ends if ends > 0 && ends == body.matches("\r\n").count() => lines.replace('\n', "\r\n"),
        _ => lines,
    };
    checked(format!("{mark}{lines}"), tables)
}

/// A new text of these tables; `None` when TOML has no form for them.
pub(super) fn new(tables: &Map<String, Json>) -> Option<String> {
    let mut document = DocumentMut::new();
    *document.as_table_mut() = table(tables, FILE)?;
    checked(document.to_string(), tables)
}

/// The text, if it says what was meant.
fn checked(text: String, tables: &Map<String, Json>) -> Option<String> {
    let (_, read) = read_tables(text.as_bytes()).ok()?;
    says_same(&read, tables, FILE).then_some(text)
}

/// True if two tables mean the same: `1.0` of a file is the `1` of a form.
fn says_same(one: &Map<String, Json>, other: &Map<String, Json>, room: Room) -> bool {
    let (one, other) = (room.ordered(one), room.ordered(other));
    one.len() == other.len()
        && one
            .iter()
            .zip(&other)
            .all(|((key, a), (name, b))| key == name && means_same(a, b, room.of(key)))
}

fn means_same(one: &Json, other: &Json, room: Room) -> bool {
    match (one, other) {
        (Json::Number(a), Json::Number(b)) if a.is_f64() != b.is_f64() => a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| means_same(a, b, room))
        }
        (Json::Object(a), Json::Object(b)) => says_same(a, b, room),
        _ => one == other,
    }
}

/// Gives a table other values. Returns comments of what went that found no place in it.
/// `headers`: whether new tables below it have headers of their own.
fn lay(
    table: &mut dyn TableLike,
    headers: bool,
    old: &Map<String, Json>,
    new: &Map<String, Json>,
    room: Room,
    rest: &mut Rest,
) -> Option<String> {
    let wanted = room.ordered(new);
    let mut left = String::new();
    for key in old.keys() {
        if !wanted.iter().any(|(name, _)| name == key) {
            left.push_str(&rest.take_out(table, key));
        }
    }
    for (key, value) in wanted {
        let inner = room.of(key);
        if let (Some(old), Some(item)) = (old.get(key), table.get_mut(key)) {
            left.push_str(&lay_item(item, old, value, inner, rest)?);
        } else {
            let inserted = made(value, inner, headers)?;
            drop(table.insert(key, inserted));
        }
    }
    Some(left)
}

fn lay_item(
    item: &mut Item,
    old: &Json,
    new: &Json,
    room: Room,
    rest: &mut Rest,
) -> Option<String> {
    if means_same(old, new, room) {
        return Some(String::new());
    }
    match (&mut *item, old, new) {
        (Item::Table(table), Json::Object(old), Json::Object(new)) => {
            let place = table.position();
            // A text with dotted keys goes on with values.
            let headers = !table.is_dotted();
            let left = lay(table, headers, old, new, room, rest)?;
            match place {
                Some(place) => rest.keep(place, left),
                None => return Some(left),
            }
        }
        (Item::ArrayOfTables(list), Json::Array(old), Json::Array(new))
            if !new.is_empty() && new.iter().all(Json::is_object) =>
        {
            lay_tables(list, old, new, room, rest)?;
        }
        (Item::Value(value), old, new) => lay_value(value, old, new, room, rest)?,
        _ => *item = Item::Value(plain(new, room)?),
    }
    Some(String::new())
}

fn lay_value(value: &mut Toml, old: &Json, new: &Json, room: Room, rest: &mut Rest) -> Option<()> {
    match (&mut *value, old, new) {
        (Toml::InlineTable(table), Json::Object(old), Json::Object(new)) => {
            let mut left = None;
            rest::at_the_end(table, |table| {
                left = lay(table, false, old, new, room, rest);
            });
            let left = left?;
            if !left.is_empty() {
                let before = table.trailing().as_str().unwrap_or_default().to_owned();
                table.set_trailing(left + &before);
            }
        }
        (Toml::Array(list), Json::Array(old), Json::Array(new)) => {
            lay_list(list, old, new, room, rest)?;
        }
        _ => {
            let decor = value.decor().clone();
            *value = plain(new, room)?;
            *value.decor_mut() = decor;
        }
    }
    Some(())
}

fn lay_tables(
    list: &mut ArrayOfTables,
    old: &[Json],
    new: &[Json],
    room: Room,
    rest: &mut Rest,
) -> Option<()> {
    let pairs = paired(old, new);
    for place in gone(old, &pairs) {
        let gone = list.remove(place);
        rest.keep_above(&gone);
    }
    for (place, (value, pair)) in new.iter().zip(&pairs).enumerate() {
        let value = value.as_object()?;
        let (Some(old), Some(there)) = (
            pair.and_then(|pair| old.get(pair)?.as_object()),
            list.get_mut(place),
        ) else {
            list.insert(place, table(value, room)?);
            continue;
        };
        let position = there.position().unwrap_or_default();
        let left = lay(there, true, old, value, room, rest)?;
        rest.keep(position, left);
    }
    Some(())
}

fn lay_list(
    list: &mut Array,
    old: &[Json],
    new: &[Json],
    room: Room,
    rest: &mut Rest,
) -> Option<()> {
    let pairs = paired(old, new);
    for place in gone(old, &pairs) {
        rest::take_out_of(list, place);
    }
    for (place, (value, pair)) in new.iter().zip(&pairs).enumerate() {
        match (pair.and_then(|pair| old.get(pair)), list.get_mut(place)) {
            (Some(old), Some(there)) if !means_same(old, value, room) => {
                lay_value(there, old, value, room, rest)?;
            }
            (Some(_), Some(_)) => {}
            _ => rest::put_into(list, place, plain(value, room)?),
        }
    }
    Some(())
}

/// The places of those that are no more, the last first.
fn gone(old: &[Json], pairs: &[Option<usize>]) -> impl Iterator<Item = usize> {
    let all = (0..old.len()).rev();
    all.filter(|place| !pairs.contains(&Some(*place)))
}

/// For each new one of a list, which of the old ones it is, by its name; in their order.
fn paired(old: &[Json], new: &[Json]) -> Vec<Option<usize>> {
    let names: Vec<Cow<'_, str>> = old.iter().map(name).collect();
    let mut from = 0;
    let mut pairs = Vec::with_capacity(new.len());
    for value in new {
        let wanted = name(value);
        let found = (from..names.len()).find(|place| names.get(*place) == Some(&wanted));
        from = found.map_or(from, |place| place + 1);
        pairs.push(found);
    }
    // As many as before: some have other names, or another order.
    if old.len() == new.len() && pairs.contains(&None) {
        return (0..new.len()).map(Some).collect();
    }
    pairs
}

/// Name that tells one of a list from its neighbours.
fn name(value: &Json) -> Cow<'_, str> {
    let named = ["endpoint_name", "model", "name", "url"].iter();
    let mut named = named.filter_map(|key| value.get(key)?.as_str());
    match named.next() {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(value.to_string()),
    }
}

/// A value that was not there, under a header of its own where it may have one.
fn made(value: &Json, room: Room, headers: bool) -> Option<Item> {
    let own = headers && !matches!(room, Room::Free);
    match value {
        Json::Object(entries) if own => Some(Item::Table(table(entries, room)?)),
        Json::Array(list) if own && !list.is_empty() && list.iter().all(Json::is_object) => {
            let tables = list.iter().filter_map(Json::as_object);
            let tables: Option<ArrayOfTables> = tables.map(|each| table(each, room)).collect();
            Some(Item::ArrayOfTables(tables?))
        }
        _ => Some(Item::Value(plain(value, room)?)),
    }
}

fn table(entries: &Map<String, Json>, room: Room) -> Option<Table> {
    let mut table = Table::new();
    for (key, value) in room.ordered(entries) {
        drop(table.insert(key, made(value, room.of(key), true)?));
    }
    Some(table)
}

/// A value on one line.
fn plain(value: &Json, room: Room) -> Option<Toml> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) if number.is_f64() => number.as_f64()?.into(),
        Json::Number(number) => number.as_i64()?.into(),
        Json::String(text) => text.as_str().into(),
        Json::Array(list) => {
            let list: Option<Array> = list.iter().map(|each| plain(each, room)).collect();
            list?.into()
        }
        Json::Object(entries) => {
            let mut table = InlineTable::new();
            for (key, value) in room.ordered(entries) {
                table.insert(key, plain(value, room.of(key))?);
            }
            table.into()
        }
    })
}

#[cfg(test)]
mod tests;
