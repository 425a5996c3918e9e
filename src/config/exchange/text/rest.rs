//! Rest of keys, tables and elements that are taken out: the comments above them.

use toml_edit::{
    Array, Decor, DocumentMut, InlineTable, Item, Key, RawString, Table, TableLike, Value,
};

/// Comments that wait for the next table of the text, by the position of the table that
/// they stood in.
#[derive(Default)]
pub(super) struct Rest(Vec<(isize, String)>);

impl Rest {
    /// Keeps comments for what follows the table at this position.
    pub(super) fn keep(&mut self, position: isize, comments: String) {
        if comments.contains('#') {
            self.0.push((position, comments));
        }
    }

    /// Keeps what stands above the header of a table that goes. What touches the header
    /// goes with it, unless it is the first of the file, and then about all of it.
    pub(super) fn keep_above(&mut self, gone: &Table) {
        let above = before(gone.decor());
        let position = gone.position().unwrap_or_default();
        let kept = if position <= 1 {
            above
        } else {
            let end = above.rfind("\n\n").map_or(0, |end| end + 1);
            above.get(..end).unwrap_or_default().to_owned()
        };
        self.keep(position, kept);
    }

    /// Takes a key out of a table. What stood above it goes before the key that follows;
    /// where none does, it is returned.
    pub(super) fn take_out(&mut self, table: &mut dyn TableLike, key: &str) -> String {
        let follows = table
            .iter()
            .skip_while(|(name, _)| *name != key)
            .skip(1)
            .find(|(_, item)| item.is_value())
            .map(|(name, _)| name.to_owned());
        let mut comments = table.key(key).map(above).unwrap_or_default();
        match table.remove(key) {
            Some(Item::Table(gone)) if gone.is_dotted() => comments += &above_all(&gone),
            Some(Item::Table(gone)) => {
                self.keep_above(&gone);
                return String::new();
            }
            Some(Item::ArrayOfTables(gone)) => {
                gone.iter().for_each(|each| self.keep_above(each));
                return String::new();
            }
            _ => {}
        }
        if !comments.contains('#') {
            return String::new();
        }
        let Some(mut next) = follows.and_then(|name| table.key_mut(&name)) else {
            return comments;
        };
        let decor = next.leaf_decor_mut();
        let there = before(decor);
        decor.set_prefix(comments + &there);
        String::new()
    }

    /// Puts what is kept before the next table that is left, or at the end.
    pub(super) fn settle(self, document: &mut DocumentMut) {
        // The last first: each goes before what is there already.
        for (position, comments) in self.0.into_iter().rev() {
            if let Some(table) = next(document.as_table_mut(), position) {
                let decor = table.decor_mut();
                let there = before(decor);
                decor.set_prefix(comments + &there);
            } else {
                let all = comments + text(Some(document.trailing()));
                document.set_trailing(all);
            }
        }
    }
}

/// Takes an element out of a list. Comments above it stay, that on its line goes.
///
/// Up to its first line feed, what stands before an element belongs to the line of the
/// one before it.
pub(super) fn take_out_of(list: &mut Array, place: usize) {
    let gone = list.remove(place);
    let above = before(gone.decor());
    let follows = match list.get(place) {
        Some(next) => before(next.decor()),
        None => format!("{}{}", after(gone.decor()), text(Some(list.trailing()))),
    };
    let left = match follows.find('\n') {
        Some(end) if above.contains('#') => {
            above.trim_end().to_owned() + follows.get(end..).unwrap_or_default()
        }
        Some(end) => follows.get(end..).unwrap_or_default().to_owned(),
        None if place == 0 || above.contains('#') => above,
        None => follows,
    };
    match list.get_mut(place) {
        Some(next) => next.decor_mut().set_prefix(left),
        None => list.set_trailing(left),
    }
}

/// Puts an element into a list, on a line of its own where its neighbours have theirs.
pub(super) fn put_into(list: &mut Array, place: usize, mut value: Value) {
    let neighbour = list.len().checked_sub(1).and_then(|end| list.get(end));
    let neighbour = neighbour.map(|each| before(each.decor()));
    let Some(indent) = neighbour.and_then(|prefix| {
        let line = prefix.rfind('\n')?;
        prefix.get(line..).map(str::to_owned)
    }) else {
        return list.insert(place, value);
    };
    // The comment at the end of the line before stays on that line.
    let (mut line, mut ending) = (String::new(), String::new());
    if let Some(next) = list.get_mut(place) {
        let (first, rest) = split(&before(next.decor()));
        next.decor_mut().set_prefix(rest);
        line = first;
    } else {
        let previous = place.checked_sub(1).and_then(|place| list.get_mut(place));
        if let Some(previous) = previous {
            (line, ending) = split(&after(previous.decor()));
            previous.decor_mut().set_suffix("");
        }
        let (first, rest) = split(text(Some(list.trailing())));
        line += &first;
        list.set_trailing(rest);
    }
    value
        .decor_mut()
        .set_prefix(line.trim_end().to_owned() + &indent);
    value.decor_mut().set_suffix(ending);
    list.insert_formatted(place, value);
}

/// A text before and from its first line feed.
fn split(text: &str) -> (String, String) {
    let end = text.find('\n').unwrap_or(0);
    let (first, rest) = text.split_at(end);
    (first.to_owned(), rest.to_owned())
}

/// Keeps the space before the closing brace of an inline table where it is.
pub(super) fn at_the_end(table: &mut InlineTable, change: impl FnOnce(&mut InlineTable)) {
    let space = match table.iter_mut().last() {
        Some((_, last)) if after(last.decor()).trim().is_empty() => {
            let space = after(last.decor());
            last.decor_mut().set_suffix("");
            space
        }
        _ => String::new(),
    };
    change(table);
    if let Some((_, last)) = table.iter_mut().last()
        && after(last.decor()).is_empty()
    {
        last.decor_mut().set_suffix(space);
    }
}

/// The table after this position that comes first.
fn next(table: &mut Table, after: isize) -> Option<&mut Table> {
    let mut first: Option<isize> = None;
    walk(table, &mut |position| {
        if position > after && first.is_none_or(|known| position < known) {
            first = Some(position);
        }
    });
    at(table, first?)
}

fn walk(table: &Table, seen: &mut dyn FnMut(isize)) {
    for (_, item) in table {
        match item {
            Item::Table(inner) => {
                if let Some(position) = inner.position().filter(|_| has_header(inner)) {
                    seen(position);
                }
                walk(inner, seen);
            }
            Item::ArrayOfTables(list) => {
                for inner in list {
                    inner.position().into_iter().for_each(&mut *seen);
                    walk(inner, seen);
                }
            }
            _ => {}
        }
    }
}

fn at(table: &mut Table, position: isize) -> Option<&mut Table> {
    table.iter_mut().find_map(|(_, item)| match item {
        Item::Table(inner) => itself_or_in(inner, position),
        Item::ArrayOfTables(list) => list
            .iter_mut()
            .find_map(|inner| itself_or_in(inner, position)),
        _ => None,
    })
}

fn itself_or_in(table: &mut Table, position: isize) -> Option<&mut Table> {
    if table.position() == Some(position) && has_header(table) {
        return Some(table);
    }
    at(table, position)
}

fn has_header(table: &Table) -> bool {
    !table.is_dotted() && !table.is_implicit()
}

fn above(key: &Key) -> String {
    before(key.leaf_decor())
}

/// Text above the lines of a table in dotted keys.
fn above_all(table: &Table) -> String {
    let lines = table.get_values().into_iter();
    lines
        .filter_map(|(path, _)| path.last().map(|key| above(key)))
        .collect()
}

fn before(decor: &Decor) -> String {
    text(decor.prefix()).to_owned()
}

fn after(decor: &Decor) -> String {
    text(decor.suffix()).to_owned()
}

fn text(raw: Option<&RawString>) -> &str {
    raw.and_then(RawString::as_str).unwrap_or_default()
}
