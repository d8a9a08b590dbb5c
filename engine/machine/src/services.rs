//! What a kernel's services cost: system calls, faults and refills, followed by the kernel's own exceptions.
//!
//! A [`Recorder`] looks on while a CPU, virtual or not, enters exceptions and returns from them. It changes
//! nothing, so a run with one is the same run. A *service* begins with an exception of a program in user mode
//! and ends with the ERET that leads back to user mode.
//!
//! - What comes in between is part of it, exceptions of the kernel itself too; but the time of an *interrupt*
//!   taken in the kernel, up to the ERET that ends it, is taken out again: it is another's business.
//! - A service in which the kernel *switches* to another thread is left out and only counted: what follows is
//!   the time of others. Linux writes UserLocal, the thread pointer, at each switch (`switch_to`), and nowhere
//!   else but in `set_thread_area`, whose own write is known.
//! - `exit` and `exit_group` do not return; they end with the switch.
//!
//! Which fault it was, the kernel shows by how it answers. A TLB exception that ends before Status has been
//! written was settled by the handler in assembly, which only has to look into the page table: a *quick fault*.
//! One after which the page reads as zeros was a *demand-zero* fault. The rest are of pages that had their
//! content already, from a file or shared with a parent.
//!
//! Source: SOSP'97, table 2, whose services these are: `UTLB_MISS`, `QUICK_FAULT`, `DEMAND_ZERO` and system calls.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};

use crate::cp0::{Mode, status};
use crate::{Cp0, Exception};

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// A refill by the kernel's handler.
    TlbRefill,
    /// A refill that the kernel never saw: the monitor answered it.
    TlbRefillByMonitor,
    /// A TLB exception that needed no more than a look into the page table.
    QuickFault,
    /// A fault that brought a page of zeros.
    DemandZeroFault,
    /// A fault that brought another page.
    PageFault,
    /// A store to a page that may not be written: copy on write, or a first store.
    WriteFault,
    /// An interrupt taken in user mode.
    Interrupt,
    /// A coprocessor that is not usable: the first use of the floating-point unit.
    Coprocessor,
    /// An unaligned or forbidden address.
    AddressError,
    /// Any other exception.
    Other,
    /// The system call of that number.
    Syscall(u32),
}

impl Service {
    /// Its name; that of a system call is the kernel's business.
    pub fn name(self) -> &'static str {
        match self {
            Service::TlbRefill => "tlb refill",
            Service::TlbRefillByMonitor => "tlb refill by disco",
            Service::QuickFault => "quick fault",
            Service::DemandZeroFault => "demand-zero fault",
            Service::PageFault => "page fault",
            Service::WriteFault => "write fault",
            Service::Interrupt => "interrupt",
            Service::Coprocessor => "coprocessor",
            Service::AddressError => "address error",
            Service::Other => "other exception",
            Service::Syscall(_) => "system call",
        }
    }

    /// The service that an exception in user mode asks for; `v0` is where a system call has its number.
    fn of(exception: Exception, v0: u64) -> Service {
        match exception {
            Exception::Syscall => Service::Syscall(v0 as u32),
            Exception::TlbRefill { .. } => Service::TlbRefill,
            Exception::TlbModified { .. } => Service::WriteFault,
            Exception::TlbInvalid { .. }
            | Exception::TlbReadInhibit { .. }
            | Exception::TlbExecuteInhibit { .. } => Service::PageFault,
            Exception::Interrupt => Service::Interrupt,
            Exception::CoprocessorUnusable { .. } => Service::Coprocessor,
            Exception::AddressError { .. } => Service::AddressError,
            _ => Service::Other,
        }
    }

    /// Whether it ends with the switch to another thread. Numbers of the n64, o32 and n32 tables.
    fn ends_thread(self) -> bool {
        const EXIT: [u32; 3] = [5058, 4001, 6058];
        const EXIT_GROUP: [u32; 3] = [5205, 4246, 6205];
        matches!(self, Service::Syscall(number) if EXIT.contains(&number) || EXIT_GROUP.contains(&number))
    }

    /// How often it writes the thread pointer of the thread that asked for it.
    fn own_writes(self) -> u32 {
        const SET_THREAD_AREA: [u32; 3] = [5242, 4283, 6246];
        u32::from(matches!(self, Service::Syscall(number) if SET_THREAD_AREA.contains(&number)))
    }
}

/// A point in the life of a CPU, or the way from one to another. `M` is what the monitor has spent, by whatever
/// parts it knows; nothing on the bare machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment<M> {
    /// Cycles of its own.
    pub cycles: u64,
    /// Instructions executed.
    pub instructions: u64,
    /// Of the cycles, the monitor's.
    pub monitor: M,
}

/// What can be spent.
pub trait Spent: Copy + Default + AddAssign + Sub<Output = Self> {}
impl<M: Copy + Default + AddAssign + Sub<Output = M>> Spent for M {}

/// Nothing: what the monitor spends on the bare machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nothing;

impl AddAssign for Nothing {
    fn add_assign(&mut self, _: Nothing) {}
}
impl Sub for Nothing {
    type Output = Nothing;
    fn sub(self, _: Nothing) -> Nothing {
        Nothing
    }
}

impl<M: Spent> AddAssign for Moment<M> {
    fn add_assign(&mut self, other: Moment<M>) {
        self.cycles += other.cycles;
        self.instructions += other.instructions;
        self.monitor += other.monitor;
    }
}

impl<M: Spent> Sub for Moment<M> {
    type Output = Moment<M>;
    fn sub(self, earlier: Moment<M>) -> Moment<M> {
        Moment {
            cycles: self.cycles - earlier.cycles,
            instructions: self.instructions - earlier.instructions,
            monitor: self.monitor - earlier.monitor,
        }
    }
}

/// What all calls of a service have cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost<M> {
    /// Calls that are part of the sums.
    pub count: u64,
    /// Calls left out, because the kernel switched to another thread in them.
    pub switched: u64,
    /// Of the calls that count, those from which an interrupt was taken out.
    pub interrupted: u64,
    /// The sums.
    pub total: Moment<M>,
    /// How many calls took how many cycles.
    cycles: BTreeMap<u64, u64>,
}

impl<M: Spent> Cost<M> {
    fn add(&mut self, spent: Moment<M>, is_interrupted: bool) {
        self.count += 1;
        self.interrupted += u64::from(is_interrupted);
        self.total += spent;
        *self.cycles.entry(spent.cycles).or_default() += 1;
    }

    /// Adds what another CPU has counted.
    pub fn merge(&mut self, other: &Cost<M>) {
        self.count += other.count;
        self.switched += other.switched;
        self.interrupted += other.interrupted;
        self.total += other.total;
        for (cycles, count) in &other.cycles {
            *self.cycles.entry(*cycles).or_default() += count;
        }
    }

    /// Cycles of the call in the middle, the lower of two; 0 if there is none.
    pub fn median_cycles(&self) -> u64 {
        let mut below = 0;
        for (cycles, count) in &self.cycles {
            below += count;
            if 2 * below >= self.count {
                return *cycles;
            }
        }
        0
    }
}

/// A service that has begun.
#[derive(Clone, Copy, Debug)]
struct Open<M> {
    service: Service,
    start: Moment<M>,
    /// The address of a TLB fault.
    vaddr: Option<u64>,
    /// Spent on interrupts.
    excluded: Moment<M>,
    is_interrupted: bool,
    /// Status has been written.
    is_slow: bool,
    own_writes: u32,
}

/// Follows the services of one CPU.
#[derive(Debug, Default)]
pub struct Recorder<M> {
    costs: BTreeMap<Service, Cost<M>>,
    open: Option<Open<M>>,
    /// Exceptions of the kernel that have not returned; of an interrupt, when it began.
    nested: Vec<Option<Moment<M>>>,
}

/// What the CPU was doing when it entered an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A program, in user mode.
    User,
    /// The kernel.
    Kernel,
    /// The kernel, at exception level: the exception replaces the one before, and one ERET ends both.
    ExceptionLevel,
}

impl From {
    /// What a CPU with this CP0 is doing.
    pub fn mode(cp0: &Cp0) -> From {
        match cp0.mode() {
            Mode::User => From::User,
            _ if cp0.status & (status::EXL | status::ERL) != 0 => From::ExceptionLevel,
            _ => From::Kernel,
        }
    }
}

impl<M: Spent> Recorder<M> {
    /// The CPU enters an exception; `v0` is register 2.
    pub fn entered(&mut self, exception: Exception, from: From, v0: u64, at: Moment<M>) {
        match from {
            From::User => {
                self.leave_out();
                let service = Service::of(exception, v0);
                self.nested.clear();
                self.open = Some(Open {
                    service,
                    start: at,
                    vaddr: exception.bad_vaddr(),
                    excluded: Moment::default(),
                    is_interrupted: false,
                    is_slow: false,
                    own_writes: service.own_writes(),
                });
            }
            From::Kernel if self.open.is_some() => {
                self.nested.push((exception == Exception::Interrupt).then_some(at));
            }
            From::Kernel | From::ExceptionLevel => {}
        }
    }

    /// The kernel writes Status.
    pub fn wrote_status(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_slow = true;
        }
    }

    /// The kernel writes UserLocal: it switches to another thread.
    pub fn wrote_user_local(&mut self, at: Moment<M>) {
        match &mut self.open {
            Some(open) if open.own_writes > 0 => open.own_writes -= 1,
            Some(open) if open.service.ends_thread() => self.close(at, |_| None),
            Some(_) => self.leave_out(),
            None => {}
        }
    }

    /// The CPU has returned from an exception. `is_zeros` looks at the page of an address: whether it reads as
    /// zeros, if it can be read.
    pub fn returned(&mut self, is_to_user: bool, at: Moment<M>, is_zeros: impl FnOnce(u64) -> Option<bool>) {
        if is_to_user {
            self.close(at, is_zeros);
            return;
        }
        let Some(Some(start)) = self.nested.pop() else { return };
        if self.nested.iter().any(Option::is_some) {
            return; // inside another interrupt
        }
        if let Some(open) = &mut self.open {
            open.excluded += at - start;
            open.is_interrupted = true;
        }
    }

    /// The monitor has answered a refill of a program from `start` to `at`.
    pub fn refilled_by_monitor(&mut self, start: Moment<M>, at: Moment<M>) {
        self.costs.entry(Service::TlbRefillByMonitor).or_default().add(at - start, false);
    }

    fn close(&mut self, at: Moment<M>, is_zeros: impl FnOnce(u64) -> Option<bool>) {
        let Some(open) = self.open.take() else { return };
        let service = match (open.service, open.vaddr) {
            (Service::PageFault | Service::WriteFault, _) if !open.is_slow => Service::QuickFault,
            (Service::PageFault, Some(vaddr)) if is_zeros(vaddr) == Some(true) => Service::DemandZeroFault,
            (service, _) => service,
        };
        let spent = at - open.start - open.excluded;
        self.costs.entry(service).or_default().add(spent, open.is_interrupted);
    }

    fn leave_out(&mut self) {
        if let Some(open) = self.open.take() {
            self.costs.entry(open.service).or_default().switched += 1;
        }
    }

    /// What has been recorded.
    pub fn costs(&self) -> &BTreeMap<Service, Cost<M>> {
        &self.costs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AccessKind;

    fn at(cycles: u64) -> Moment<Nothing> {
        Moment { cycles, instructions: cycles / 2, monitor: Nothing }
    }

    fn call(recorder: &mut Recorder<Nothing>, number: u64, start: u64) {
        recorder.entered(Exception::Syscall, From::User, number, at(start));
    }

    fn no_page(_: u64) -> Option<bool> {
        None
    }

    #[test]
    fn a_service_lasts_from_its_exception_to_the_return_to_user_mode() {
        let mut recorder = Recorder::default();
        for (start, end) in [(100, 200), (300, 310), (400, 430)] {
            call(&mut recorder, 5000, start);
            recorder.returned(true, at(end), no_page);
        }
        let cost = &recorder.costs()[&Service::Syscall(5000)];
        assert_eq!(
            (cost.count, cost.total, cost.median_cycles()),
            (3, Moment { cycles: 140, instructions: 70, monitor: Nothing }, 30)
        );
    }

    #[test]
    fn an_exception_of_the_kernel_is_part_of_it_and_an_interrupt_is_not() {
        let mut recorder = Recorder::default();
        let refill = Exception::TlbRefill { vaddr: 0, access: AccessKind::Load };
        call(&mut recorder, 1, 0);
        recorder.entered(refill, From::Kernel, 0, at(10));
        recorder.returned(false, at(20), no_page);
        recorder.entered(Exception::Interrupt, From::Kernel, 0, at(30));
        recorder.entered(refill, From::Kernel, 0, at(40));
        recorder.entered(Exception::Interrupt, From::Kernel, 0, at(44)); // an interrupt in an interrupt
        recorder.returned(false, at(46), no_page);
        recorder.returned(false, at(50), no_page);
        recorder.returned(false, at(130), no_page);
        recorder.returned(true, at(140), no_page);
        let cost = &recorder.costs()[&Service::Syscall(1)];
        assert_eq!((cost.count, cost.interrupted, cost.total.cycles), (1, 1, 40));
    }

    #[test]
    fn one_return_ends_an_exception_that_replaced_another() {
        let mut recorder = Recorder::default();
        call(&mut recorder, 1, 0);
        recorder.entered(Exception::Interrupt, From::Kernel, 0, at(10));
        recorder.entered(
            Exception::TlbRefill { vaddr: 0, access: AccessKind::Load },
            From::ExceptionLevel,
            0,
            at(12),
        );
        recorder.returned(false, at(20), no_page);
        recorder.returned(true, at(30), no_page);
        assert_eq!(recorder.costs()[&Service::Syscall(1)].total.cycles, 20);
    }

    #[test]
    fn a_service_with_a_switch_is_left_out_and_what_follows_is_not_its() {
        let mut recorder = Recorder::default();
        call(&mut recorder, 1, 0);
        recorder.entered(Exception::Interrupt, From::Kernel, 0, at(5));
        recorder.wrote_user_local(at(10));
        recorder.returned(false, at(20), no_page);
        recorder.returned(true, at(30), no_page);
        call(&mut recorder, 1, 40);
        recorder.returned(true, at(47), no_page);
        call(&mut recorder, 1, 50);
        call(&mut recorder, 2, 60); // the first never returned: a switch that nobody saw
        recorder.returned(true, at(61), no_page);
        let cost = &recorder.costs()[&Service::Syscall(1)];
        assert_eq!((cost.count, cost.switched, cost.total.cycles), (1, 2, 7));
        assert_eq!(recorder.costs()[&Service::Syscall(2)].total.cycles, 1);
    }

    #[test]
    fn exit_ends_with_the_switch_and_a_thread_may_name_its_own_thread_pointer() {
        let mut recorder = Recorder::default();
        call(&mut recorder, 5205, 0);
        recorder.wrote_user_local(at(9));
        recorder.returned(true, at(20), no_page);
        call(&mut recorder, 4283, 30);
        recorder.wrote_user_local(at(35));
        recorder.returned(true, at(40), no_page);
        assert_eq!(recorder.costs()[&Service::Syscall(5205)].total.cycles, 9);
        assert_eq!(recorder.costs()[&Service::Syscall(4283)].total.cycles, 10);
        assert!(recorder.costs().values().all(|cost| cost.switched == 0));
    }

    #[test]
    fn a_fault_is_what_the_kernel_made_of_it() {
        let mut recorder = Recorder::default();
        let invalid = Exception::TlbInvalid { vaddr: 0x1000, access: AccessKind::Store };
        let mut fault = |exception, is_slow, zeros: Option<bool>| {
            recorder.entered(exception, From::User, 0, at(0));
            if is_slow {
                recorder.wrote_status();
            }
            recorder.returned(true, at(1), |vaddr| {
                assert_eq!(vaddr, 0x1000);
                zeros
            });
        };
        fault(invalid, false, Some(true));
        fault(invalid, true, Some(true));
        fault(invalid, true, Some(false));
        fault(invalid, true, None);
        fault(Exception::TlbModified { vaddr: 0x1000 }, true, Some(true));
        fault(Exception::TlbModified { vaddr: 0x1000 }, false, Some(true));
        let counts: Vec<(Service, u64)> =
            recorder.costs().iter().map(|(service, cost)| (*service, cost.count)).collect();
        let expected = [
            (Service::QuickFault, 2),
            (Service::DemandZeroFault, 1),
            (Service::PageFault, 2),
            (Service::WriteFault, 1),
        ];
        assert_eq!(counts, expected);
    }
}
