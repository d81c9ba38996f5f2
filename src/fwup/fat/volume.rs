//! A volume that is in use: the operations on names. File contents are in `file`.

use super::boot::{Folder, Geometry};
use super::dir::{ARCHIVE, FOLDER, Found, HIDDEN, LABEL, READ_ONLY, Record, SYSTEM};
use super::name::Name;
use super::table::Table;
use super::{Blocks, FatError, SECTOR, put_u16};

/// Most folders in a path.
const MAX_DEPTH: usize = 128;
const LABEL_SIZE: usize = 11;

/// The state of one volume. It holds what the table window has not written yet: call [`Volume::flush`]
/// before anything else reads or writes the volume's blocks, and drop it when they were replaced.
#[derive(Debug)]
pub struct Volume {
    pub(super) geo: Geometry,
    pub(super) table: Table,
}

impl Volume {
    /// Opens the volume whose boot sector is block `offset`.
    pub fn open(dev: &mut dyn Blocks, offset: u64) -> Result<Volume, FatError> {
        let mut boot = [0; SECTOR];
        dev.read(offset, &mut boot)?;
        let geo = Geometry::parse(&boot, offset)?;
        let table = Table::open(&geo, dev)?;
        Ok(Volume { geo, table })
    }

    /// Writes what is only in memory. Operations end with this by themselves, except writing a file,
    /// where `finish` does it.
    pub fn flush(&mut self, dev: &mut dyn Blocks) -> Result<(), FatError> {
        self.table.flush(&self.geo, dev)
    }

    /// Sets the label, at most 11 characters; an empty one removes it.
    pub fn set_label(&mut self, dev: &mut dyn Blocks, label: &str) -> Result<(), FatError> {
        let text = label.trim_end_matches(' ').to_ascii_uppercase();
        let allowed = |c: char| matches!(c, ' '..='~') && !"\"*+,.:;<=>?[]|".contains(c);
        if text.len() > LABEL_SIZE || !text.chars().all(allowed) || text.starts_with(' ') {
            return Err(FatError::Label(label.to_owned()));
        }
        let mut name = [b' '; LABEL_SIZE];
        name[..text.len()].copy_from_slice(text.as_bytes());
        match self.find_label(dev)? {
            Some(found) if text.is_empty() => self.erase(dev, &found),
            Some(mut found) => {
                found.record.0[..LABEL_SIZE].copy_from_slice(&name);
                self.store(dev, found.place(), &found.record)
            }
            None if text.is_empty() => Ok(()),
            None => {
                let mut record = Record::new(LABEL);
                record.0[..LABEL_SIZE].copy_from_slice(&name);
                self.insert_raw(dev, self.geo.root, &[record.0], label)?;
                self.flush(dev)
            }
        }
    }

    /// Creates a folder; fine if there is one.
    pub fn mkdir(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<(), FatError> {
        let (parent, name) = self.locate(dev, path)?;
        match self.find(dev, parent, &name)? {
            Some(found) if found.record.has(FOLDER) => return Ok(()),
            Some(_) => return Err(FatError::Exists(path.to_owned())),
            None => {}
        }
        let cluster = self.zeroed_cluster(dev, None)?;
        let mut record = Record::new(FOLDER);
        put_u16(&mut record.0, 24, super::DATE_1980);
        record.set_content(cluster, 0);
        let mut above = record;
        above.set_content(self.parent_number(parent), 0);
        let mut dots = Vec::new();
        for (text, mut dot) in [(b".          ", record), (b"..         ", above)] {
            dot.0[..LABEL_SIZE].copy_from_slice(text);
            dots.push(dot.0);
        }
        let added = self
            .insert_raw(dev, Folder::Chain(cluster), &dots, path)
            .and_then(|_| self.insert(dev, parent, &name, record, path));
        if added.is_err() {
            self.table.free_chain(&self.geo, dev, cluster)?;
        }
        self.flush(dev)?;
        added.map(|_| ())
    }

    /// Creates an empty file unless there is one.
    pub fn touch(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<(), FatError> {
        let (parent, name) = self.locate(dev, path)?;
        match self.find(dev, parent, &name)? {
            Some(found) if found.record.has(FOLDER) => Err(FatError::IsFolder(path.to_owned())),
            Some(_) => Ok(()),
            None => {
                self.insert(dev, parent, &name, Record::new(ARCHIVE).with_times(), path)?;
                self.flush(dev)
            }
        }
    }

    /// Renames or moves a file or folder. With `replace` whatever has the new name is removed first.
    pub fn rename(
        &mut self,
        dev: &mut dyn Blocks,
        from: &str,
        to: &str,
        replace: bool,
    ) -> Result<(), FatError> {
        let (old_parent, name) = self.locate(dev, from)?;
        let old = self.find(dev, old_parent, &name)?.ok_or_else(|| FatError::NotFound(from.to_owned()))?;
        let (folders, name) = self.walk(dev, to)?;
        let new_parent = folders.last().copied().unwrap_or(self.geo.root);
        let is_folder = old.record.has(FOLDER);
        if is_folder && folders.contains(&self.folder(&old.record)?) {
            return Err(FatError::IntoItself(from.to_owned()));
        }
        match self.find(dev, new_parent, &name)? {
            // Only the case of the letters changes.
            Some(target) if target.place() == old.place() => {}
            Some(target) if replace => self.remove_found(dev, &target, to)?,
            Some(_) => return Err(FatError::Exists(to.to_owned())),
            None => {}
        }
        let mut record = old.record;
        if !is_folder {
            record.0[11] |= ARCHIVE;
        }
        self.insert(dev, new_parent, &name, record, to)?;
        if is_folder && new_parent != old_parent {
            self.set_parent(dev, self.folder(&record)?, new_parent)?;
        }
        self.erase(dev, &old)?;
        self.flush(dev)
    }

    /// Removes a file or an empty folder. Unless it `must_exist`, it is fine if it is not there.
    pub fn remove(&mut self, dev: &mut dyn Blocks, path: &str, must_exist: bool) -> Result<(), FatError> {
        match self.look_up(dev, path) {
            Ok(found) => self.remove_found(dev, &found, path),
            Err(FatError::NotFound(_) | FatError::NoFolder(_)) if !must_exist => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Sets the three attributes to exactly these values.
    pub fn attrib(
        &mut self,
        dev: &mut dyn Blocks,
        path: &str,
        read_only: bool,
        hidden: bool,
        system: bool,
    ) -> Result<(), FatError> {
        let mut found = self.look_up(dev, path)?;
        let bits = &mut found.record.0[11];
        for (wanted, bit) in [(read_only, READ_ONLY), (hidden, HIDDEN), (system, SYSTEM)] {
            *bits = if wanted { *bits | bit } else { *bits & !bit };
        }
        self.store(dev, found.place(), &found.record)
    }

    /// Whether there is a file (not a folder) of that name.
    pub fn is_file(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<bool, FatError> {
        match self.look_up(dev, path) {
            Ok(found) => Ok(!found.record.has(FOLDER)),
            Err(FatError::NotFound(_) | FatError::NoFolder(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn look_up(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<Found, FatError> {
        let (parent, name) = self.locate(dev, path)?;
        self.find(dev, parent, &name)?.ok_or_else(|| FatError::NotFound(path.to_owned()))
    }

    /// The folder that a path leads to, and the name in it.
    pub(super) fn locate(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<(Folder, Name), FatError> {
        let (folders, name) = self.walk(dev, path)?;
        Ok((folders.last().copied().unwrap_or(self.geo.root), name))
    }

    /// All folders on the way, from the root to the one that holds the last name.
    fn walk(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<(Vec<Folder>, Name), FatError> {
        let mut parts: Vec<&str> = path.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
        let last = parts.pop().ok_or_else(|| FatError::Name(path.to_owned()))?;
        if parts.len() > MAX_DEPTH {
            return Err(FatError::Name(path.to_owned()));
        }
        let mut folder = self.geo.root;
        let mut folders = vec![folder];
        for part in parts {
            let name = Name::parse(part)?;
            folder = match self.find(dev, folder, &name)? {
                Some(found) if found.record.has(FOLDER) => self.folder(&found.record)?,
                _ => return Err(FatError::NoFolder(path.to_owned())),
            };
            folders.push(folder);
        }
        Ok((folders, Name::parse(last)?))
    }

    fn remove_found(&mut self, dev: &mut dyn Blocks, found: &Found, path: &str) -> Result<(), FatError> {
        if found.record.has(READ_ONLY) {
            return Err(FatError::ReadOnly(path.to_owned()));
        }
        if found.record.has(FOLDER) {
            let folder = self.folder(&found.record)?;
            if !self.is_empty(dev, folder)? {
                return Err(FatError::NotEmpty(path.to_owned()));
            }
        }
        self.erase(dev, found)?;
        let cluster = found.record.cluster(&self.geo);
        if cluster != 0 {
            self.table.free_chain(&self.geo, dev, cluster)?;
        }
        self.flush(dev)
    }
}
