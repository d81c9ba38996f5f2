//! A configuration in memory: sections with typed settings, as their schema says.

use std::path::PathBuf;

use super::schema::{Kind, Schema};
use super::{Problem, shown};
use crate::fwup::number;

#[derive(Clone)]
pub struct Section {
    pub schema: &'static Schema,
    pub title: Vec<u8>,
    /// The folder to which `host-path` is relative: that of the file in which it stands.
    pub host_folder: PathBuf,
    /// One for each entry of the schema.
    values: Vec<Value>,
}

#[derive(Clone)]
enum Value {
    Unset,
    Text(Vec<u8>),
    Int(i64),
    Flag(bool),
    List(Vec<Vec<u8>>),
    Sections(Vec<Section>),
}

/// A requirement or an action: its name, its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: Vec<u8>,
    pub arguments: Vec<Vec<u8>>,
}

impl Section {
    pub fn new(schema: &'static Schema, title: Vec<u8>) -> Self {
        let values = schema.entries.iter().map(|_| Value::Unset).collect();
        Self { schema, title, host_folder: PathBuf::new(), values }
    }

    fn value(&self, name: &str) -> Option<(&'static Kind, &Value)> {
        let at = self.schema.position(name.as_bytes())?;
        Some((&self.schema.entries[at].kind, self.values.get(at)?))
    }

    fn value_mut(&mut self, name: &[u8]) -> Option<(&'static Kind, &mut Value)> {
        let at = self.schema.position(name)?;
        Some((&self.schema.entries[at].kind, self.values.get_mut(at)?))
    }

    /// A string that was given and is not empty.
    pub fn text(&self, name: &str) -> Option<&[u8]> {
        match self.value(name)? {
            (_, Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The setting stands there, empty or not.
    pub fn is_given(&self, name: &str) -> bool {
        self.value(name).is_some_and(|(_, value)| !matches!(value, Value::Unset))
    }

    /// A string, or its default.
    pub fn text_or_default(&self, name: &str) -> &[u8] {
        match self.value(name) {
            Some((_, Value::Text(text))) => text,
            Some((Kind::Text(default), _)) => default.as_bytes(),
            _ => &[],
        }
    }

    pub fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Some((_, Value::Int(value))) => *value,
            Some((Kind::Int(default), _)) => *default,
            _ => 0,
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.value(name), Some((_, Value::Flag(true))))
    }

    pub fn list(&self, name: &str) -> &[Vec<u8>] {
        match self.value(name) {
            Some((_, Value::List(list))) => list,
            _ => &[],
        }
    }

    pub fn sections(&self, kind: &str) -> &[Section] {
        match self.value(kind) {
            Some((_, Value::Sections(sections))) => sections,
            _ => &[],
        }
    }

    pub fn sections_mut(&mut self, kind: &str) -> &mut [Section] {
        match self.value_mut(kind.as_bytes()) {
            Some((_, Value::Sections(sections))) => sections,
            _ => &mut [],
        }
    }

    /// The section of this kind and title.
    pub fn section(&self, kind: &str, title: &[u8]) -> Option<&Section> {
        self.sections(kind).iter().find(|section| section.title == title)
    }

    /// The requirements or actions of this section.
    pub fn calls(&self) -> Result<Vec<Call>, Problem> {
        let list = self.schema.calls.list().map(|name| self.list(name)).unwrap_or_default();
        split_calls(list)
    }

    pub fn set_text(&mut self, name: &str, text: Vec<u8>) {
        if let Some((_, value)) = self.value_mut(name.as_bytes()) {
            *value = Value::Text(text);
        }
    }

    pub fn set_flag(&mut self, name: &str, flag: bool) {
        if let Some((_, value)) = self.value_mut(name.as_bytes()) {
            *value = Value::Flag(flag);
        }
    }

    pub fn set_list(&mut self, name: &str, list: Vec<Vec<u8>>) {
        if let Some((_, value)) = self.value_mut(name.as_bytes()) {
            *value = Value::List(list);
        }
    }

    /// Sets what `name = text` says; the type comes from the schema.
    pub fn assign(&mut self, name: &[u8], text: Vec<u8>) -> Result<(), Problem> {
        let wrong = |kind, text: &[u8]| Problem::Value { name: shown(name), kind, value: shown(text) };
        let (kind, value) = self.value_mut(name).ok_or_else(|| unknown(name))?;
        *value = match kind {
            Kind::Text(_) => Value::Text(text),
            Kind::Int(_) => Value::Int(number::parse_i64(&text).ok_or_else(|| wrong("an integer", &text))?),
            Kind::Flag => Value::Flag(parse_flag(&text).ok_or_else(|| wrong("true or false", &text))?),
            Kind::List | Kind::CallList => Value::List(vec![text]),
            Kind::Section(_) => return Err(unknown(name)),
        };
        Ok(())
    }

    /// Sets or extends a list.
    pub fn assign_list(&mut self, name: &[u8], items: Vec<Vec<u8>>, append: bool) -> Result<(), Problem> {
        let (kind, value) = self.value_mut(name).ok_or_else(|| unknown(name))?;
        match (kind, value) {
            (Kind::List | Kind::CallList, Value::List(list)) if append => list.extend(items),
            (Kind::List | Kind::CallList, value) => *value = Value::List(items),
            (Kind::Section(_), _) => return Err(unknown(name)),
            _ if append => return Err(Problem::NoList { name: shown(name) }),
            _ => return Err(Problem::OneValue { name: shown(name) }),
        }
        Ok(())
    }

    /// Adds a call to the list that this section has for calls.
    pub fn add_call(&mut self, call: &Call) {
        let Some((_, value)) = self.schema.calls.list().and_then(|name| self.value_mut(name.as_bytes()))
        else {
            return;
        };
        if !matches!(value, Value::List(_)) {
            *value = Value::List(Vec::new());
        }
        if let Value::List(list) = value {
            list.push((call.arguments.len() + 1).to_string().into_bytes());
            list.push(call.name.clone());
            list.extend(call.arguments.iter().cloned());
        }
    }

    /// Takes an untitled section out, to add to it.
    pub fn take_untitled(&mut self, schema: &'static Schema) -> Section {
        match self.value_mut(schema.kind.as_bytes()) {
            Some((_, Value::Sections(sections))) if !schema.titled => sections.pop(),
            _ => None,
        }
        .unwrap_or_else(|| Section::new(schema, Vec::new()))
    }

    pub fn add_section(&mut self, section: Section) {
        let Some((_, value)) = self.value_mut(section.schema.kind.as_bytes()) else { return };
        match value {
            Value::Sections(sections) => sections.push(section),
            value => *value = Value::Sections(vec![section]),
        }
    }
}

fn unknown(name: &[u8]) -> Problem {
    Problem::UnknownSetting { name: shown(name) }
}

fn parse_flag(text: &[u8]) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    if is(["true", "yes", "on"]) { Some(true) } else { is(["false", "no", "off"]).then_some(false) }
}

/// Each call is the number of words that follow, its name, its arguments.
fn split_calls(mut list: &[Vec<u8>]) -> Result<Vec<Call>, Problem> {
    let mut calls = Vec::new();
    while let Some((count, rest)) = list.split_first() {
        let count = number::parse_u64(count).and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| (1..=MOST_ARGUMENTS + 1).contains(count)).ok_or(Problem::Calls)?;
        let (words, rest) = rest.split_at_checked(count).ok_or(Problem::Calls)?;
        let (name, arguments) = words.split_first().ok_or(Problem::Calls)?;
        calls.push(Call { name: name.clone(), arguments: arguments.to_vec() });
        list = rest;
    }
    Ok(calls)
}

pub const MOST_ARGUMENTS: usize = 9;
