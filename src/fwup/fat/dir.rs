//! Folders: reading their entries one after another, finding, adding and removing names.

use std::collections::BTreeSet;

use super::boot::{Folder, Geometry, Kind};
use super::name::{LONG_ENTRY, LongName, Name};
use super::table::Link;
use super::volume::Volume;
use super::{Blocks, DATE_1980, FatError, SECTOR, put_u16, put_u32, u16_at, u32_at};

pub(super) const READ_ONLY: u8 = 0x01;
pub(super) const HIDDEN: u8 = 0x02;
pub(super) const SYSTEM: u8 = 0x04;
pub(super) const LABEL: u8 = 0x08;
pub(super) const FOLDER: u8 = 0x10;
pub(super) const ARCHIVE: u8 = 0x20;

const ENTRY: usize = 32;
const ENTRIES_PER_SECTOR: usize = SECTOR / ENTRY;
/// Most entries that the format allows in a folder; what has more is a loop.
const MAX_ENTRIES: u32 = 65536;
const UNUSED: u8 = 0xE5;
/// First byte of the entry behind the last one.
const END: u8 = 0;

/// Where an entry is on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    sector: u32,
    at: usize,
}

/// The 32 bytes that describe a file, a folder or the label.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record(pub [u8; ENTRY]);

impl Record {
    pub fn new(attributes: u8) -> Record {
        let mut raw = [0; ENTRY];
        raw[11] = attributes;
        Record(raw)
    }

    pub fn with_times(mut self) -> Record {
        put_u16(&mut self.0, 16, DATE_1980);
        put_u16(&mut self.0, 24, DATE_1980);
        self
    }

    pub fn attributes(&self) -> u8 {
        self.0[11]
    }

    pub fn has(&self, attribute: u8) -> bool {
        self.0[11] & attribute != 0
    }

    pub fn size(&self) -> u32 {
        u32_at(&self.0, 28)
    }

    /// The first cluster as it stands there, to be checked before use; 0 for an empty file.
    pub fn cluster(&self, geo: &Geometry) -> u32 {
        let high = if geo.kind == Kind::Fat32 { u32::from(u16_at(&self.0, 20)) << 16 } else { 0 };
        u32::from(u16_at(&self.0, 26)) | high
    }

    pub fn set_content(&mut self, cluster: u32, size: u32) {
        put_u16(&mut self.0, 20, (cluster >> 16) as u16);
        put_u16(&mut self.0, 26, cluster as u16);
        put_u32(&mut self.0, 28, size);
    }

    fn is_dots(&self) -> bool {
        matches!(&self.0[..11], b".          " | b"..         ")
    }
}

/// A file, folder or label that was found, and all entries that belong to it, its record last.
#[derive(Debug)]
pub(super) struct Found {
    pub record: Record,
    places: Vec<Place>,
}

impl Found {
    pub fn place(&self) -> Place {
        // Built with at least one place.
        self.places.last().copied().unwrap_or(Place { sector: 0, at: 0 })
    }
}

impl Volume {
    /// Looks for a name in a folder. Labels do not count.
    pub(super) fn find(
        &mut self,
        dev: &mut dyn Blocks,
        folder: Folder,
        name: &Name,
    ) -> Result<Option<Found>, FatError> {
        self.search(dev, folder, |long, record| !record.has(LABEL) && name.matches(long, &record.0))
    }

    pub(super) fn find_label(&mut self, dev: &mut dyn Blocks) -> Result<Option<Found>, FatError> {
        let root = self.geo.root;
        self.search(dev, root, |_, record| record.has(LABEL) && !record.has(FOLDER))
    }

    pub(super) fn is_empty(&mut self, dev: &mut dyn Blocks, folder: Folder) -> Result<bool, FatError> {
        Ok(self.search(dev, folder, |_, record| !record.is_dots() && !record.has(LABEL))?.is_none())
    }

    /// Adds an entry. Its names are filled in; everything else comes from `record`.
    pub(super) fn insert(
        &mut self,
        dev: &mut dyn Blocks,
        folder: Folder,
        name: &Name,
        mut record: Record,
        path: &str,
    ) -> Result<Place, FatError> {
        let short = if name.lossy { self.unused_short(dev, folder, name)? } else { name.short };
        record.0[..11].copy_from_slice(&short);
        record.0[12] = name.case_bits;
        let mut entries = name.long_entries(&short);
        entries.push(record.0);
        self.insert_raw(dev, folder, &entries, path)
    }

    /// Puts entries into the first gap that is large enough, extending the folder if there is none.
    pub(super) fn insert_raw(
        &mut self,
        dev: &mut dyn Blocks,
        folder: Folder,
        entries: &[[u8; ENTRY]],
        path: &str,
    ) -> Result<Place, FatError> {
        let mut cursor = Cursor::open(&self.geo, folder);
        let mut gap = Vec::new();
        let mut ended = false;
        while gap.len() < entries.len() {
            let Some((place, record)) = cursor.next(self, dev)? else {
                let Some(tail) = cursor.tail else { return Err(FatError::FolderFull(path.to_owned())) };
                self.zeroed_cluster(dev, Some(tail))?;
                continue;
            };
            // Whatever lies behind the end mark is rubbish.
            ended |= record.0[0] == END;
            if ended || record.0[0] == UNUSED {
                gap.push(place);
            } else {
                gap.clear();
            }
        }
        let rubbish = if ended { cursor.next(self, dev)?.filter(|(_, r)| r.0[0] != END) } else { None };
        self.table.flush(&self.geo, dev)?;
        if let Some((place, _)) = rubbish {
            self.patch(dev, place, &[END])?;
        }
        for (place, entry) in gap.iter().zip(entries) {
            self.patch(dev, *place, entry)?;
        }
        gap.last().copied().ok_or(FatError::Damaged("a folder has no room"))
    }

    /// Removes all entries of what was found; its clusters stay as they are.
    pub(super) fn erase(&mut self, dev: &mut dyn Blocks, found: &Found) -> Result<(), FatError> {
        found.places.iter().try_for_each(|place| self.patch(dev, *place, &[UNUSED]))
    }

    pub(super) fn store(
        &mut self,
        dev: &mut dyn Blocks,
        place: Place,
        record: &Record,
    ) -> Result<(), FatError> {
        self.patch(dev, place, &record.0)
    }

    /// The record at a place where one was found before.
    pub(super) fn record_at(&mut self, dev: &mut dyn Blocks, place: Place) -> Result<Record, FatError> {
        let mut sector = [0; SECTOR];
        dev.read(self.geo.block(place.sector), &mut sector)?;
        let mut raw = [0; ENTRY];
        raw.copy_from_slice(&sector[place.at..place.at + ENTRY]);
        Ok(Record(raw))
    }

    /// Where the entries of a folder are that another folder names.
    pub(super) fn folder(&self, record: &Record) -> Result<Folder, FatError> {
        let cluster = record.cluster(&self.geo);
        if self.geo.is_cluster(cluster) {
            Ok(Folder::Chain(cluster))
        } else {
            Err(FatError::Damaged("a folder begins outside of the volume"))
        }
    }

    /// Takes a cluster for a folder and fills it with zeros.
    pub(super) fn zeroed_cluster(
        &mut self,
        dev: &mut dyn Blocks,
        tail: Option<u32>,
    ) -> Result<u32, FatError> {
        let (cluster, _) = self.table.allocate(&self.geo, dev, tail, 1)?;
        let start = self.geo.cluster_start(cluster);
        for sector in start..start + self.geo.sectors_per_cluster {
            dev.write(self.geo.block(sector), &[0; SECTOR], false)?;
        }
        Ok(cluster)
    }

    /// The entry that says where the folder above is: the second one of every folder but the root.
    pub(super) fn set_parent(
        &mut self,
        dev: &mut dyn Blocks,
        folder: Folder,
        parent: Folder,
    ) -> Result<(), FatError> {
        let mut cursor = Cursor::open(&self.geo, folder);
        cursor.next(self, dev)?;
        if let Some((place, mut record)) = cursor.next(self, dev)?
            && record.0[..11] == *b"..         "
        {
            record.set_content(self.parent_number(parent), 0);
            self.store(dev, place, &record)?;
        }
        Ok(())
    }

    /// How `..` names a folder: the root is 0, also where it has a cluster.
    pub(super) fn parent_number(&self, folder: Folder) -> u32 {
        match folder {
            Folder::Chain(cluster) if folder != self.geo.root => cluster,
            _ => 0,
        }
    }

    fn search(
        &mut self,
        dev: &mut dyn Blocks,
        folder: Folder,
        wanted: impl Fn(Option<&[u16]>, &Record) -> bool,
    ) -> Result<Option<Found>, FatError> {
        let mut cursor = Cursor::open(&self.geo, folder);
        let mut long = LongName::default();
        let mut places = Vec::new();
        while let Some((place, record)) = cursor.next(self, dev)? {
            match record.0[0] {
                END => break,
                UNUSED => {
                    long = LongName::default();
                    places.clear();
                }
                _ if record.attributes() & 0x3F == LONG_ENTRY => {
                    if !long.push(&record.0) {
                        places.clear();
                    }
                    places.push(place);
                }
                _ => {
                    let name = long.of(&record.0);
                    if name.is_none() {
                        places.clear();
                    }
                    if wanted(name, &record) {
                        places.push(place);
                        return Ok(Some(Found { record, places }));
                    }
                    long = LongName::default();
                    places.clear();
                }
            }
        }
        Ok(None)
    }

    /// The short name with the smallest number that no name of the folder has.
    fn unused_short(
        &mut self,
        dev: &mut dyn Blocks,
        folder: Folder,
        name: &Name,
    ) -> Result<[u8; 11], FatError> {
        let mut cursor = Cursor::open(&self.geo, folder);
        let mut taken = BTreeSet::new();
        while let Some((_, record)) = cursor.next(self, dev)? {
            match record.0[0] {
                END => break,
                UNUSED => {}
                _ => taken.extend(name.number_in(&record.0[..11])),
            }
        }
        Ok(name.numbered_short(&taken))
    }

    fn patch(&mut self, dev: &mut dyn Blocks, place: Place, bytes: &[u8]) -> Result<(), FatError> {
        let mut sector = [0; SECTOR];
        let block = self.geo.block(place.sector);
        dev.read(block, &mut sector)?;
        sector[place.at..place.at + bytes.len()].copy_from_slice(bytes);
        dev.write(block, &sector, false)?;
        Ok(())
    }
}

/// Goes through the 32-byte entries of a folder, used or not.
struct Cursor {
    /// The sector to read next, and how many there are before the table has to be asked.
    sector: u32,
    left: u32,
    /// The last cluster of the chain so far; none for the root area.
    tail: Option<u32>,
    at: usize,
    count: u32,
    buffer: [u8; SECTOR],
}

impl Cursor {
    fn open(geo: &Geometry, folder: Folder) -> Cursor {
        let (sector, left, tail) = match folder {
            Folder::Area { start, sectors } => (start, sectors, None),
            Folder::Chain(first) => (geo.cluster_start(first), geo.sectors_per_cluster, Some(first)),
        };
        Cursor { sector, left, tail, at: ENTRIES_PER_SECTOR, count: 0, buffer: [0; SECTOR] }
    }

    /// The next entry, or nothing where the folder's own sectors end.
    fn next(&mut self, vol: &mut Volume, dev: &mut dyn Blocks) -> Result<Option<(Place, Record)>, FatError> {
        if self.at == ENTRIES_PER_SECTOR {
            if self.left == 0 {
                let Some(tail) = self.tail else { return Ok(None) };
                match vol.table.link(&vol.geo, dev, tail)? {
                    Link::Next(cluster) => {
                        self.tail = Some(cluster);
                        self.sector = vol.geo.cluster_start(cluster);
                        self.left = vol.geo.sectors_per_cluster;
                    }
                    Link::End => return Ok(None),
                    Link::Free | Link::Bad => return Err(FatError::Damaged("a folder has no end")),
                }
            }
            dev.read(vol.geo.block(self.sector), &mut self.buffer)?;
            self.sector += 1;
            self.left -= 1;
            self.at = 0;
        }
        self.count += 1;
        if self.count > MAX_ENTRIES {
            return Err(FatError::Damaged("a folder has no end"));
        }
        let place = Place { sector: self.sector - 1, at: self.at * ENTRY };
        let mut raw = [0; ENTRY];
        raw.copy_from_slice(&self.buffer[place.at..place.at + ENTRY]);
        self.at += 1;
        Ok(Some((place, Record(raw))))
    }
}
