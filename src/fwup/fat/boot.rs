//! The boot sector of an existing volume, checked once and turned into a geometry that the rest trusts.

use super::{FatError, SECTOR, u16_at, u32_at};

/// Where things are on a volume. All sectors count from its beginning.
///
/// What `parse` guarantees: tables, root area and every cluster lie inside `0..total`, and the table has
/// an entry for each cluster.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    /// Block of the destination where the volume begins.
    pub offset: u64,
    pub kind: Kind,
    pub sectors_per_cluster: u32,
    pub table_start: u32,
    pub table_sectors: u32,
    pub tables: u32,
    pub root: Folder,
    pub data_start: u32,
    pub clusters: u32,
    /// The FSInfo sector of a FAT32 volume that has one.
    pub info: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// Where the entries of a folder are: FAT12 and FAT16 have an area for the root, all others are chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    Area { start: u32, sectors: u32 },
    Chain(u32),
}

/// The cluster counts up to which a volume is FAT12, FAT16, or anything at all.
const FAT12_CLUSTERS: u32 = 4085;
const FAT16_CLUSTERS: u32 = 65525;
const FAT32_CLUSTERS: u32 = 0x0FFF_FFF5;

impl Geometry {
    /// Reads the boot sector `b` of the volume that begins at block `offset`.
    pub fn parse(b: &[u8; SECTOR], offset: u64) -> Result<Geometry, FatError> {
        let bad = |reason| FatError::NotFat { offset, reason };
        if b[510..] != [0x55, 0xAA] {
            return Err(bad("no boot sector"));
        }
        if usize::from(u16_at(b, 11)) != SECTOR {
            return Err(bad("sectors are not of 512 bytes"));
        }
        let sectors_per_cluster = u32::from(b[13]);
        if !sectors_per_cluster.is_power_of_two() {
            return Err(bad("bad cluster size"));
        }
        let table_start = u32::from(u16_at(b, 14));
        let tables = u32::from(b[16]);
        if table_start == 0 || !(1..=2).contains(&tables) {
            return Err(bad("bad number of tables"));
        }
        let root_entries = u32::from(u16_at(b, 17));
        if root_entries % 16 != 0 {
            return Err(bad("bad size of the root folder"));
        }
        let total = nonzero(u16_at(b, 19).into()).unwrap_or(u32_at(b, 32));
        let table_sectors = nonzero(u16_at(b, 22).into()).unwrap_or(u32_at(b, 36));
        let root_sectors = root_entries / 16;

        let root_start = tables
            .checked_mul(table_sectors)
            .and_then(|n| n.checked_add(table_start))
            .ok_or(bad("bad size of the tables"))?;
        let data_start = root_start.checked_add(root_sectors).ok_or(bad("bad size of the tables"))?;
        let clusters =
            total.checked_sub(data_start).ok_or(bad("bad size of the volume"))? / sectors_per_cluster;
        if clusters == 0 || clusters > FAT32_CLUSTERS || offset.checked_add(total.into()).is_none() {
            return Err(bad("bad size of the volume"));
        }

        let kind = Kind::of(clusters);
        if u64::from(table_sectors) * (SECTOR as u64) < kind.table_bytes(clusters) {
            return Err(bad("the table does not describe all of the volume"));
        }
        let (root, info) = match kind {
            Kind::Fat32 => {
                let root = u32_at(b, 44);
                if root_entries != 0 || u16_at(b, 42) != 0 || root < 2 || root - 2 >= clusters {
                    return Err(bad("bad root folder"));
                }
                let info = u32::from(u16_at(b, 48));
                (Folder::Chain(root), (info > 0 && info < table_start).then_some(info))
            }
            _ if root_entries == 0 => return Err(bad("bad root folder")),
            _ => (Folder::Area { start: root_start, sectors: root_sectors }, None),
        };
        Ok(Geometry {
            offset,
            kind,
            sectors_per_cluster,
            table_start,
            table_sectors,
            tables,
            root,
            data_start,
            clusters,
            info,
        })
    }

    /// The block of the destination that holds a sector of the volume.
    pub fn block(&self, sector: u32) -> u64 {
        self.offset + u64::from(sector)
    }

    /// The first sector of a cluster, which the caller has checked with [`Geometry::is_cluster`].
    pub fn cluster_start(&self, cluster: u32) -> u32 {
        self.data_start + (cluster - 2) * self.sectors_per_cluster
    }

    pub fn is_cluster(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }
}

impl Kind {
    /// The number of clusters alone decides about the kind of a volume.
    pub fn of(clusters: u32) -> Kind {
        if clusters <= FAT12_CLUSTERS {
            Kind::Fat12
        } else if clusters <= FAT16_CLUSTERS {
            Kind::Fat16
        } else {
            Kind::Fat32
        }
    }

    /// Bytes that a table with entries for so many clusters (and the two reserved ones) takes.
    fn table_bytes(self, clusters: u32) -> u64 {
        let entries = u64::from(clusters) + 2;
        match self {
            Kind::Fat12 => (entries * 3).div_ceil(2),
            Kind::Fat16 => entries * 2,
            Kind::Fat32 => entries * 4,
        }
    }
}

fn nonzero(n: u32) -> Option<u32> {
    (n != 0).then_some(n)
}
