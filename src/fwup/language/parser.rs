//! Reads a configuration or a `meta.conf`. Everything is processed as it is read: a definition counts for
//! what follows it, and a reference must come after what it names.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::lexer::{Lexer, Source, Token};
use super::schema::{self, Calls, Kind, Schema};
use super::section::{Call, MOST_ARGUMENTS, Section};
use super::variables::Variables;
use super::{ConfigError, Problem, check, eval, shown};
use crate::files::{FileError, read_limited};

/// Reads the `meta.conf` of an archive. What is unknown is skipped, and no other file is read.
pub fn read_meta_conf(bytes: Vec<u8>, variables: &mut Variables) -> Result<Section, ConfigError> {
    let source = Source::new("meta.conf".into(), PathBuf::new(), bytes);
    Parser { lexer: Lexer::new(source), variables, strict: false }.file()
}

/// Reads a configuration for creating an archive: strictly. `folder` is where it lies.
pub fn read_configuration(
    name: String,
    folder: PathBuf,
    bytes: Vec<u8>,
    variables: &mut Variables,
) -> Result<Section, ConfigError> {
    Parser { lexer: Lexer::new(Source::new(name, folder, bytes)), variables, strict: true }.file()
}

struct Parser<'a> {
    lexer: Lexer,
    variables: &'a mut Variables,
    strict: bool,
}

impl Parser<'_> {
    fn file(mut self) -> Result<Section, ConfigError> {
        let mut top = Section::new(&schema::TOP, Vec::new());
        self.items(&mut top, None).map_err(|problem| self.lexer.error(problem))?;
        Ok(top)
    }

    fn next(&mut self) -> Result<Token, Problem> {
        self.lexer.next(self.variables)
    }

    /// The items of a section, up to its end. `top` is what was read before, if this is not it.
    fn items(&mut self, section: &mut Section, top: Option<&Section>) -> Result<(), Problem> {
        loop {
            let name = match self.next()? {
                Token::Text(name) => name,
                Token::CloseBrace if top.is_some() => return Ok(()),
                Token::End if top.is_none() => return Ok(()),
                Token::End if !self.strict => return Ok(()),
                Token::End => return Err(Problem::OpenSection),
                other => return Err(unexpected(&other, "a setting, a section or a function")),
            };
            match self.next()? {
                Token::Equals => self.setting(section, &name, false)?,
                Token::PlusEquals => self.setting(section, &name, true)?,
                Token::OpenParen => {
                    let call = Call { name, arguments: self.arguments()? };
                    self.call(section, top, call)?;
                }
                Token::OpenBrace => self.section(section, top, &name, None)?,
                Token::Text(title) => match self.next()? {
                    Token::OpenBrace => self.section(section, top, &name, Some(title))?,
                    other => return Err(unexpected(&other, "'{'")),
                },
                other => return Err(unexpected(&other, "'=', '{', '(' or a title")),
            }
        }
    }

    fn setting(&mut self, section: &mut Section, name: &[u8], append: bool) -> Result<(), Problem> {
        let items = match self.next()? {
            Token::Text(text) => Err(text),
            Token::OpenBrace => Ok(self.list()?),
            other => return Err(unexpected(&other, "a value")),
        };
        let position = section.schema.position(name);
        let entry = position.and_then(|at| section.schema.entries.get(at));
        match entry.map(|entry| &entry.kind) {
            None | Some(Kind::Section(_)) if self.strict => {
                return Err(Problem::UnknownSetting { name: shown(name) });
            }
            None | Some(Kind::Section(_)) => return Ok(()),
            Some(_) => {}
        }
        match items {
            Ok(items) => section.assign_list(name, items, append)?,
            Err(text) if append => section.assign_list(name, vec![text], true)?,
            Err(text) => section.assign(name, text)?,
        }
        match name {
            b"host-path" => section.host_folder = self.folder(),
            b"require-fwup-version" => check::version(section.text_or_default("require-fwup-version"))?,
            _ => {}
        }
        Ok(())
    }

    /// Values up to the closing brace.
    fn list(&mut self) -> Result<Vec<Vec<u8>>, Problem> {
        self.separated(Token::CloseBrace, "a value or '}'", "',' or '}'")
    }

    /// Arguments up to the closing parenthesis.
    fn arguments(&mut self) -> Result<Vec<Vec<u8>>, Problem> {
        self.separated(Token::CloseParen, "an argument or ')'", "',' or ')'")
    }

    fn separated(
        &mut self,
        end: Token,
        item: &'static str,
        separator: &'static str,
    ) -> Result<Vec<Vec<u8>>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Token::Text(text) => items.push(text),
                token if token == end && items.is_empty() => return Ok(items),
                other => return Err(unexpected(&other, item)),
            }
            match self.next()? {
                Token::Comma => {}
                token if token == end => return Ok(items),
                other => return Err(unexpected(&other, separator)),
            }
        }
    }

    fn section(
        &mut self,
        parent: &mut Section,
        top: Option<&Section>,
        name: &[u8],
        title: Option<Vec<u8>>,
    ) -> Result<(), Problem> {
        let kind = parent.schema.position(name).map(|at| &parent.schema.entries[at].kind);
        let schema: &'static Schema = match kind {
            Some(Kind::Section(schema)) if schema.titled == title.is_some() => schema,
            _ if self.strict => return Err(Problem::UnknownSection { name: shown(name) }),
            _ => return self.skip_section(),
        };
        let mut section = match title {
            None => parent.take_untitled(schema),
            Some(title) if parent.section(schema.kind, &title).is_some() => {
                return Err(Problem::Duplicate { kind: schema.kind, title: shown(&title) });
            }
            Some(title) => Section::new(schema, title),
        };
        self.items(&mut section, Some(top.unwrap_or(parent)))?;
        if self.strict {
            check::section(top.unwrap_or(parent), &mut section)?;
            self.define_size(&section);
        }
        parent.add_section(section);
        Ok(())
    }

    /// Over an unknown section, whatever is in it.
    fn skip_section(&mut self) -> Result<(), Problem> {
        let mut depth = 1_u32;
        while depth > 0 {
            match self.next()? {
                Token::OpenBrace => depth += 1,
                Token::CloseBrace => depth -= 1,
                Token::End => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    fn call(&mut self, section: &mut Section, top: Option<&Section>, call: Call) -> Result<(), Problem> {
        let given = call.arguments.len();
        if given > MOST_ARGUMENTS {
            return Err(Problem::ManyArguments { name: shown(&call.name), given, limit: MOST_ARGUMENTS });
        }
        if call.name == b"include" {
            return self.include(&call.arguments);
        }
        match section.schema.calls {
            Calls::Definitions if self.define(&call)? => return Ok(()),
            Calls::Requirements | Calls::Actions => {
                let mut call = call;
                if self.strict {
                    check::call(top.unwrap_or(section), section, &mut call)?;
                }
                section.add_call(&call);
                return Ok(());
            }
            _ => {}
        }
        if self.strict { Err(Problem::UnknownFunction { name: shown(&call.name) }) } else { Ok(()) }
    }

    /// Whether the call was a definition.
    fn define(&mut self, call: &Call) -> Result<bool, Problem> {
        let (is_expression, replaces) = match call.name.as_slice() {
            b"define" => (false, false),
            b"define!" => (false, true),
            b"define-eval" => (true, false),
            b"define-eval!" => (true, true),
            _ => return Ok(false),
        };
        let [name, value] = call.arguments.as_slice() else {
            let given = call.arguments.len();
            return Err(Problem::Arguments { name: shown(&call.name), wanted: "2", given });
        };
        let value = if is_expression {
            let result = eval::evaluate(value);
            let value = result.map_err(|reason| Problem::Expression { expression: shown(value), reason })?;
            value.to_string().into_bytes()
        } else {
            value.clone()
        };
        if replaces {
            self.variables.set(name, value);
        } else {
            self.variables.set_default(name, value);
        }
        Ok(true)
    }

    fn include(&mut self, arguments: &[Vec<u8>]) -> Result<(), Problem> {
        if !self.strict {
            return Err(Problem::IncludeRefused);
        }
        let [path] = arguments else {
            return Err(Problem::Arguments { name: "include".into(), wanted: "1", given: arguments.len() });
        };
        if path.is_empty() {
            return Err(Problem::IncludeEmpty);
        }
        let path = self.folder().join(Path::new(std::ffi::OsStr::from_bytes(path)));
        let name = path.to_string_lossy().into_owned();
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Problem::IncludeNoFile { path: name });
        }
        let bytes = read_limited(&path, LARGEST_FILE).map_err(|error| match error {
            FileError::TooLong { limit, .. } => Problem::FileTooLong { limit },
            error if error.is_not_found() => Problem::IncludeMissing { path: name.clone() },
            error => Problem::IncludeUnreadable { path: name.clone(), error: std::io::Error::other(error) },
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        self.lexer.include(Source::new(name, folder, bytes))
    }

    /// The folder of the file being read.
    fn folder(&self) -> PathBuf {
        self.lexer.source().map(|source| source.folder.clone()).unwrap_or_default()
    }

    /// Sets FWUP_SIZE_NAME for a resource whose host file is there; relative to the current folder.
    fn define_size(&mut self, section: &Section) {
        let Some(path) = section.text("host-path").filter(|_| section.schema.kind == "file-resource") else {
            return;
        };
        let path = std::ffi::OsString::from_vec(path.to_vec());
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let underscore = |&byte: &u8| if matches!(byte, b'-' | b'/' | b'.') { b'_' } else { byte };
        let name: Vec<u8> =
            b"FWUP_SIZE_".iter().copied().chain(section.title.iter().map(underscore)).collect();
        self.variables.set(&name, metadata.len().to_string());
    }
}

fn unexpected(token: &Token, wanted: &'static str) -> Problem {
    Problem::Syntax { found: token.shown(), wanted }
}

/// A configuration is text that people write.
pub const LARGEST_FILE: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn meta_conf(text: &str) -> Result<Section, ConfigError> {
        read_meta_conf(text.into(), &mut Variables::default())
    }

    #[test]
    fn a_meta_conf_is_read_with_what_it_defines() {
        let text =
            "define(A, 5) meta-product=\"x${A}\" task t { on-init { funlist={2,info,\"a b\"} info(c) } }
                    future { deep { x = { 1, 2 } } call(1) } new-setting={1} later(1)";
        let top = meta_conf(text).unwrap();
        assert_eq!(top.text("meta-product"), Some(b"x5".as_slice()));
        let calls = top.section("task", b"t").unwrap().sections("on-init")[0].calls().unwrap();
        let arguments: Vec<_> = calls.iter().map(|call| call.arguments.concat()).collect();
        assert_eq!(arguments, [b"a b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_meta_conf_reads_no_files_and_survives_anything() {
        assert!(meta_conf("include(\"/etc/passwd\")").is_err());
        let whole = "a=b task \"t\" {\non-init {\nfunlist={2,info,\"x\"}\n}\n}\nmeta-misc += x ${Y} = {";
        for cut in 0..whole.len() {
            let _ = meta_conf(&whole[..cut]);
        }
        assert!(meta_conf(&"x {".repeat(10_000)).is_ok());
        let doubling: String =
            (0..64).map(|n| format!("define(A{}, \"${{A{n}}}${{A{n}}}\")", n + 1)).collect();
        assert!(meta_conf(&format!("define(A0, xx) {doubling}")).is_err());
    }

    #[test]
    fn a_damaged_list_of_calls_is_an_error() {
        for list in ["9,info", "0", "x", "11,a,b,c,d,e,f,g,h,i,j,k", "2,info"] {
            let top = meta_conf(&format!("task t {{ on-init {{ funlist={{{list}}} }} }}")).unwrap();
            assert!(top.sections("task")[0].sections("on-init")[0].calls().is_err(), "{list}");
        }
    }

    #[test]
    fn creating_is_strict() {
        for wrong in [
            "meta-foo = 1",
            "task a { on-init { nosuch() } }",
            "task a { } task a { }",
            "task a {",
            "nosuch { }",
        ] {
            let read =
                read_configuration("x".into(), PathBuf::new(), wrong.into(), &mut Variables::default());
            assert!(read.is_err(), "{wrong}");
        }
    }
}
