//! Which settings, sections and calls exist where. The order of the tables is the order of `meta.conf`.

/// A kind of section.
pub struct Schema {
    pub kind: &'static str,
    pub titled: bool,
    /// Kept in `meta.conf` even when nothing is in it.
    pub kept_empty: bool,
    pub entries: &'static [Entry],
    pub calls: Calls,
}

/// Which calls may stand in a section, besides `include`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    None,
    Definitions,
    Requirements,
    Actions,
}

impl Calls {
    /// The list that such calls become.
    pub fn list(self) -> Option<&'static str> {
        match self {
            Self::Requirements => Some("reqlist"),
            Self::Actions => Some("funlist"),
            Self::None | Self::Definitions => None,
        }
    }
}

pub struct Entry {
    pub name: &'static str,
    pub kind: Kind,
    /// Goes into `meta.conf`.
    pub printed: bool,
}

pub enum Kind {
    /// A string and its default.
    Text(&'static str),
    Int(i64),
    /// A bool; all of them default to false.
    Flag,
    List,
    /// Calls, split by counts; only programs write them.
    CallList,
    Section(&'static Schema),
}

impl Schema {
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name.as_bytes() == name)
    }
}

/// The `block-count` that means "not given".
pub const NO_COUNT: i64 = (1 << 31) - 1;

const fn text(name: &'static str) -> Entry {
    Entry { name, kind: Kind::Text(""), printed: true }
}

const fn text_or(name: &'static str, default: &'static str) -> Entry {
    Entry { name, kind: Kind::Text(default), printed: true }
}

const fn int(name: &'static str, default: i64) -> Entry {
    Entry { name, kind: Kind::Int(default), printed: true }
}

const fn flag(name: &'static str) -> Entry {
    Entry { name, kind: Kind::Flag, printed: true }
}

const fn list(name: &'static str) -> Entry {
    Entry { name, kind: Kind::List, printed: true }
}

const fn calls(name: &'static str) -> Entry {
    Entry { name, kind: Kind::CallList, printed: true }
}

const fn section(schema: &'static Schema) -> Entry {
    Entry { name: schema.kind, kind: Kind::Section(schema), printed: true }
}

/// For the time of creating only.
const fn hidden(entry: Entry) -> Entry {
    Entry { printed: false, ..entry }
}

pub static TOP: Schema = Schema {
    kind: "configuration",
    titled: false,
    kept_empty: true,
    calls: Calls::Definitions,
    entries: &[
        text("meta-product"),
        text("meta-description"),
        text("meta-version"),
        text("meta-author"),
        text("meta-platform"),
        text("meta-architecture"),
        text("meta-fwup-version"),
        text("meta-vcs-identifier"),
        text("meta-misc"),
        hidden(text("meta-creation-date")),
        hidden(text("meta-uuid")),
        hidden(text("meta-nickname")),
        text_or("require-fwup-version", "0"),
        int("block-cache-size-mb", 8),
        section(&RESOURCE),
        section(&MBR),
        section(&GPT),
        section(&TASK),
        section(&ENVIRONMENT),
    ],
};

static RESOURCE: Schema = Schema {
    kind: "file-resource",
    titled: true,
    kept_empty: false,
    calls: Calls::None,
    entries: &[
        hidden(text("host-path")),
        hidden(text("contents")),
        hidden(flag("skip-holes")),
        hidden(int("assert-size-lte", -1)),
        hidden(int("assert-size-gte", -1)),
        list("length"),
        text("blake2b-256"),
        text("sha256"),
    ],
};

static MBR: Schema = Schema {
    kind: "mbr",
    titled: true,
    kept_empty: false,
    calls: Calls::None,
    entries: &[
        hidden(text("bootstrap-code-host-path")),
        text("bootstrap-code"),
        flag("include-osip"),
        int("osip-major", 1),
        int("osip-minor", 0),
        int("osip-num-pointers", 1),
        text_or("signature", "0"),
        section(&MBR_PARTITION),
        section(&OSII),
    ],
};

static MBR_PARTITION: Schema = Schema {
    kind: "partition",
    titled: true,
    kept_empty: false,
    calls: Calls::None,
    entries: &[
        text("block-offset"),
        int("block-count", NO_COUNT),
        int("type", -1),
        flag("boot"),
        flag("expand"),
    ],
};

static OSII: Schema = Schema {
    kind: "osii",
    titled: true,
    kept_empty: false,
    calls: Calls::None,
    entries: &[
        int("os-major", 0),
        int("os-minor", 0),
        int("start-block-offset", 0),
        int("ddr-load-address", 0),
        int("entry-point", 0),
        int("image-size-blocks", 0),
        int("attribute", 15),
    ],
};

static GPT: Schema = Schema {
    kind: "gpt",
    titled: true,
    kept_empty: false,
    calls: Calls::None,
    entries: &[text("guid"), section(&GPT_PARTITION)],
};

static GPT_PARTITION: Schema = Schema {
    kind: "partition",
    titled: true,
    kept_empty: false,
    calls: Calls::None,
    entries: &[
        text("block-offset"),
        int("block-count", NO_COUNT),
        text("type"),
        text("guid"),
        text("name"),
        text_or("flags", "0"),
        flag("expand"),
        flag("boot"),
    ],
};

static TASK: Schema = Schema {
    kind: "task",
    titled: true,
    kept_empty: true,
    calls: Calls::Requirements,
    entries: &[
        calls("reqlist"),
        int("require-partition1-offset", -1),
        flag("require-unmounted-destination"),
        flag("verify-on-the-fly"),
        section(&ON_INIT),
        section(&ON_FINISH),
        section(&ON_ERROR),
        section(&ON_RESOURCE),
    ],
};

static EVENT: [Entry; 1] = [calls("funlist")];

const fn event(kind: &'static str) -> Schema {
    Schema { kind, titled: false, kept_empty: false, calls: Calls::Actions, entries: &EVENT }
}

static ON_INIT: Schema = event("on-init");
static ON_FINISH: Schema = event("on-finish");
static ON_ERROR: Schema = event("on-error");

static ON_RESOURCE: Schema = Schema {
    kind: "on-resource",
    titled: true,
    kept_empty: false,
    calls: Calls::Actions,
    entries: &[
        flag("verify-on-the-fly"),
        text("delta-source-raw-offset"),
        int("delta-source-raw-count", NO_COUNT),
        text("delta-source-raw-options"),
        text("delta-source-fat-offset"),
        text("delta-source-fat-path"),
        calls("funlist"),
    ],
};

static ENVIRONMENT: Schema = Schema {
    kind: "uboot-environment",
    titled: true,
    kept_empty: false,
    calls: Calls::None,
    entries: &[text("block-offset"), int("block-count", 0), text("block-offset-redund")],
};
