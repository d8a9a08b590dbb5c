//! The global interrupt controller: shared sources from devices and between CPUs.
//!
//! A source is a wire (a device's, level or edge) or written by software (an inter-processor interrupt, an
//! edge through SH_WEDGE). It is mapped to one virtual processor (VP) and one of that VP's interrupt pins,
//! which are Cause.IP2 to IP7. The handler of a pin finds the source by reading the pending and mask bits.
//!
//! ```text
//! 0x00000  shared: polarity, trigger, dual edge, wedge, mask, pending, maps      one for all
//! 0x08000  local: control and the local sources' masks and maps of this VP
//! 0x0c000  other: the local block of the VP named in OTHER
//! ```
//!
//! Local sources (watchdog, compare, CP0 timer, performance counters, software) are not routable here: their
//! CTL bits read as zero, and the CP0 timer stays on its own line. There is no 64-bit counter: a machine
//! without a timer node in its device tree never asks.
//!
//! Source: the register table in Linux' `irq-mips-gic` as our guest platform notes describe it.

/// Shared sources.
pub const SOURCES: usize = 64;
/// Size of the register block in bytes.
pub const GIC_BYTES: u64 = 0x2_0000;

mod offset {
    pub const SH_CONFIG: u64 = 0x000;
    pub const POLARITY: u64 = 0x100;
    pub const TRIGGER: u64 = 0x180;
    pub const DUAL: u64 = 0x200;
    pub const WEDGE: u64 = 0x280;
    pub const RESET_MASK: u64 = 0x300;
    pub const SET_MASK: u64 = 0x380;
    pub const MASK: u64 = 0x400;
    pub const PENDING: u64 = 0x480;
    pub const MAP_PIN: u64 = 0x500;
    pub const MAP_VP: u64 = 0x2000;
    pub const LOCAL: u64 = 0x8000;
    pub const OTHER: u64 = 0xc000;
    pub const END: u64 = 0x1_0000;
}

mod local_offset {
    pub const MASK: u64 = 0x08;
    pub const RESET_MASK: u64 = 0x0c;
    pub const SET_MASK: u64 = 0x10;
    pub const MAPS: u64 = 0x40;
    pub const OTHER: u64 = 0x80;
    pub const IDENT: u64 = 0x88;
}

const MAPS: usize = 7;
const LOCAL_SOURCES: u32 = (1 << MAPS) - 1;
const WEDGE_SET: u32 = 1 << 31;
const MAP_TO_PIN: u32 = 1 << 31;
/// Pin 0 is Cause.IP2.
const FIRST_PIN_LINE: u32 = 2;
const PINS: u32 = 6;

/// What a VP has for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Local {
    mask: u32,
    maps: [u32; MAPS],
    other: u32,
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gic {
    /// Rising edge or high level.
    polarity: u64,
    /// Edge instead of level.
    trigger: u64,
    /// Both edges.
    dual: u64,
    mask: u64,
    /// The wires.
    levels: u64,
    /// Edges seen and not yet acknowledged.
    edges: u64,
    map_pin: [u32; SOURCES],
    map_vp: [u32; SOURCES],
    locals: Vec<Local>,
}

impl Gic {
    /// A controller for `vps` processors (1 to 32) in its reset state: everything masked.
    pub fn new(vps: usize) -> Gic {
        assert!((1..=32).contains(&vps), "a GIC serves 1 to 32 VPs, not {vps}");
        Gic {
            polarity: 0,
            trigger: 0,
            dual: 0,
            mask: 0,
            levels: 0,
            edges: 0,
            map_pin: [MAP_TO_PIN; SOURCES],
            map_vp: [1; SOURCES],
            locals: vec![Local::default(); vps],
        }
    }

    /// Drives the wire of a source. `source` is below [`SOURCES`].
    pub fn set_wire(&mut self, source: usize, level: bool) {
        let bit = 1u64 << source;
        let was = self.levels & bit != 0;
        self.levels = if level { self.levels | bit } else { self.levels & !bit };
        let is_active_edge = self.dual & bit != 0 || level == (self.polarity & bit != 0);
        if was != level && self.trigger & bit != 0 && is_active_edge {
            self.edges |= bit;
        }
    }

    /// Sources that ask for attention, masked or not.
    fn pending(&self) -> u64 {
        let active_levels = !(self.levels ^ self.polarity);
        (self.trigger & self.edges) | (!self.trigger & active_levels)
    }

    /// The Cause.IP bits of a VP.
    pub fn lines(&self, vp: usize) -> u8 {
        let mut ready = self.pending() & self.mask;
        let mut lines = 0;
        while ready != 0 {
            let source = ready.trailing_zeros() as usize;
            ready &= ready - 1;
            let pin = self.map_pin[source];
            if self.map_vp[source] >> vp & 1 != 0 && pin & MAP_TO_PIN != 0 && pin & 0x3f < PINS {
                lines |= 1 << (FIRST_PIN_LINE + (pin & 0x3f));
            }
        }
        lines
    }

    /// What VP `vp` reads at `offset`, 4 bytes.
    pub fn read(&self, vp: usize, offset: u64) -> u32 {
        match offset {
            offset::SH_CONFIG => (SOURCES as u32 / 8 - 1) << 16 | (self.locals.len() as u32 - 1),
            offset::LOCAL..offset::OTHER => self.read_local(vp, offset - offset::LOCAL),
            offset::OTHER..offset::END => self.read_local(self.other(vp), offset - offset::OTHER),
            offset::MAP_PIN..offset::MAP_VP => {
                self.source_at(offset - offset::MAP_PIN, 4).map_or(0, |n| self.map_pin[n])
            }
            offset::MAP_VP..offset::LOCAL => {
                self.source_at(offset - offset::MAP_VP, 0x20).map_or(0, |n| self.map_vp[n])
            }
            _ => self.read_bits(offset),
        }
    }

    fn read_bits(&self, offset: u64) -> u32 {
        let (base, word) = (offset & !0x7f, (offset & 0x7f) / 4);
        let bits = match base {
            offset::POLARITY => self.polarity,
            offset::TRIGGER => self.trigger,
            offset::DUAL => self.dual,
            offset::MASK => self.mask,
            offset::PENDING => self.pending(),
            _ => 0,
        };
        if word < 2 { (bits >> (32 * word)) as u32 } else { 0 }
    }

    fn read_local(&self, vp: usize, offset: u64) -> u32 {
        let Some(local) = self.locals.get(vp) else { return 0 };
        match offset {
            local_offset::MASK => local.mask,
            local_offset::OTHER => local.other,
            local_offset::IDENT => vp as u32,
            _ => map_at(offset).map_or(0, |map| local.maps[map]),
        }
    }

    /// VP `vp` writes 4 bytes at `offset`.
    pub fn write(&mut self, vp: usize, offset: u64, value: u32) {
        match offset {
            offset::WEDGE => self.wedge(value),
            offset::LOCAL..offset::OTHER => self.write_local(vp, offset - offset::LOCAL, value),
            offset::OTHER..offset::END => self.write_local(self.other(vp), offset - offset::OTHER, value),
            offset::MAP_PIN..offset::MAP_VP => {
                if let Some(source) = self.source_at(offset - offset::MAP_PIN, 4) {
                    self.map_pin[source] = value;
                }
            }
            offset::MAP_VP..offset::LOCAL => {
                if let Some(source) = self.source_at(offset - offset::MAP_VP, 0x20) {
                    self.map_vp[source] = value;
                }
            }
            _ => self.write_bits(offset, value),
        }
    }

    /// SH_WEDGE: software sets or acknowledges an edge.
    fn wedge(&mut self, value: u32) {
        let source = value & 0xff;
        if (source as usize) < SOURCES {
            let bit = 1u64 << source;
            self.edges = if value & WEDGE_SET != 0 { self.edges | bit } else { self.edges & !bit };
        }
    }

    fn write_bits(&mut self, offset: u64, value: u32) {
        let (base, word) = (offset & !0x7f, (offset & 0x7f) / 4);
        if word >= 2 {
            return;
        }
        let field = 0xffff_ffffu64 << (32 * word);
        let bits = u64::from(value) << (32 * word);
        let replaced = |old: u64| (old & !field) | bits;
        match base {
            offset::POLARITY => self.polarity = replaced(self.polarity),
            offset::TRIGGER => self.trigger = replaced(self.trigger),
            offset::DUAL => self.dual = replaced(self.dual),
            offset::RESET_MASK => self.mask &= !bits,
            offset::SET_MASK => self.mask |= bits,
            _ => {}
        }
    }

    fn write_local(&mut self, vp: usize, offset: u64, value: u32) {
        let Some(local) = self.locals.get_mut(vp) else { return };
        match offset {
            local_offset::RESET_MASK => local.mask &= !value,
            local_offset::SET_MASK => local.mask |= value & LOCAL_SOURCES,
            local_offset::OTHER => local.other = value,
            _ => {
                if let Some(map) = map_at(offset) {
                    local.maps[map] = value;
                }
            }
        }
    }

    fn other(&self, vp: usize) -> usize {
        self.locals[vp].other as usize
    }

    fn source_at(&self, offset: u64, stride: u64) -> Option<usize> {
        let source = (offset / stride) as usize;
        (offset.is_multiple_of(stride) && source < SOURCES).then_some(source)
    }
}

fn map_at(offset: u64) -> Option<usize> {
    let map = (offset.checked_sub(local_offset::MAPS)? / 4) as usize;
    (map < MAPS).then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_source(vps: usize, source: u32, vp: u32) -> Gic {
        let mut gic = Gic::new(vps);
        gic.write(0, offset::MAP_PIN + 4 * u64::from(source), MAP_TO_PIN);
        gic.write(0, offset::MAP_VP + 0x20 * u64::from(source), 1 << vp);
        gic.write(0, offset::SET_MASK + 4 * u64::from(source / 32), 1 << (source % 32));
        gic
    }

    #[test]
    fn a_level_source_follows_its_wire_and_its_mask() {
        let mut gic = with_source(2, 40, 1);
        gic.write(0, offset::POLARITY + 4, 1 << 8);
        assert_eq!((gic.lines(0), gic.lines(1)), (0, 0));
        gic.set_wire(40, true);
        assert_eq!((gic.lines(0), gic.lines(1)), (0, 1 << 2));
        assert_eq!(gic.read(0, offset::PENDING + 4) >> 8 & 1, 1);
        gic.write(1, offset::RESET_MASK + 4, 1 << 8);
        assert_eq!(gic.lines(1), 0);
    }

    #[test]
    fn an_interprocessor_interrupt_stays_until_it_is_acknowledged() {
        let mut gic = with_source(4, 63, 3);
        gic.write(0, offset::TRIGGER + 4, 1 << 31);
        gic.write(0, offset::WEDGE, WEDGE_SET | 63);
        assert_eq!(gic.lines(3), 1 << 2);
        gic.write(3, offset::WEDGE, 63);
        assert_eq!(gic.lines(3), 0);
    }

    #[test]
    fn a_rising_edge_counts_once() {
        let mut gic = with_source(1, 5, 0);
        gic.write(0, offset::TRIGGER, 1 << 5);
        gic.write(0, offset::POLARITY, 1 << 5);
        gic.set_wire(5, true);
        gic.set_wire(5, false);
        assert_eq!(gic.lines(0), 1 << 2);
        gic.write(0, offset::WEDGE, 5);
        assert_eq!(gic.lines(0), 0);
    }

    #[test]
    fn the_other_block_is_the_local_block_of_the_named_vp() {
        let mut gic = Gic::new(3);
        gic.write(0, offset::LOCAL + local_offset::OTHER, 2);
        gic.write(0, offset::OTHER + local_offset::SET_MASK, 0xff);
        assert_eq!(gic.read(2, offset::LOCAL + local_offset::MASK), LOCAL_SOURCES);
        assert_eq!(gic.read(0, offset::OTHER + local_offset::IDENT), 2);
        gic.write(0, offset::LOCAL + local_offset::OTHER, 77);
        assert_eq!(gic.read(0, offset::OTHER + local_offset::IDENT), 0);
    }
}
