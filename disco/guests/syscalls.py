"""System calls of Linux on MIPS, by number and by name.

A kernel for 64-bit CPUs has three tables, one for each way to compile a program, and each has numbers of its
own: o32 from 4000, n64 from 5000, n32 from 6000. From 424 on, all have the same calls at the same place.

Source: `asm/unistd_o32.h`, `asm/unistd_n64.h` and `asm/unistd_n32.h` of Linux 6.1; the kernels of our images.
"""

from __future__ import annotations

#: At the same place in every table, from 424. A dash is no call.
_COMMON = """
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen
fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule
landlock_restrict_self - process_mrelease futex_waitv set_mempolicy_home_node
"""

_O32 = """
syscall exit fork read write open close waitpid creat link unlink execve chdir time mknod chmod
lchown break unused18 lseek getpid mount umount setuid getuid stime ptrace alarm unused28 pause
utime stty gtty access nice ftime sync kill rename mkdir rmdir dup pipe times prof brk setgid
getgid signal geteuid getegid acct umount2 lock ioctl fcntl mpx setpgid ulimit unused59 umask
chroot ustat dup2 getppid getpgrp setsid sigaction sgetmask ssetmask setreuid setregid
sigsuspend sigpending sethostname setrlimit getrlimit getrusage gettimeofday settimeofday
getgroups setgroups reserved82 symlink unused84 readlink uselib swapon reboot readdir mmap
munmap truncate ftruncate fchmod fchown getpriority setpriority profil statfs fstatfs ioperm
socketcall syslog setitimer getitimer stat lstat fstat unused109 iopl vhangup idle vm86 wait4
swapoff sysinfo ipc fsync sigreturn clone setdomainname uname modify_ldt adjtimex mprotect
sigprocmask create_module init_module delete_module get_kernel_syms quotactl getpgid fchdir
bdflush sysfs personality afs_syscall setfsuid setfsgid _llseek getdents _newselect flock msync
readv writev cacheflush cachectl sysmips unused150 getsid fdatasync _sysctl mlock munlock
mlockall munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler
sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval nanosleep mremap
accept bind connect getpeername getsockname getsockopt listen recv recvfrom recvmsg send sendmsg
sendto setsockopt shutdown socket socketpair setresuid getresuid query_module poll nfsservctl
setresgid getresgid prctl rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait
rt_sigqueueinfo rt_sigsuspend pread64 pwrite64 chown getcwd capget capset sigaltstack sendfile
getpmsg putpmsg mmap2 truncate64 ftruncate64 stat64 lstat64 fstat64 pivot_root mincore madvise
getdents64 fcntl64 reserved221 gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr
fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill sendfile64
futex sched_setaffinity sched_getaffinity io_setup io_destroy io_getevents io_submit io_cancel
exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages set_tid_address
restart_syscall fadvise64 statfs64 fstatfs64 timer_create timer_settime timer_gettime
timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep tgkill
utimes mbind get_mempolicy set_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive
mq_notify mq_getsetattr vserver waitid - add_key request_key keyctl set_thread_area inotify_init
inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat
fstatat64 unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
unshare splice sync_file_range tee vmsplice move_pages set_robust_list get_robust_list
kexec_load getcpu epoll_pwait ioprio_set ioprio_get utimensat signalfd timerfd eventfd fallocate
timerfd_create timerfd_gettime timerfd_settime signalfd4 eventfd2 epoll_create1 dup3 pipe2
inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open accept4 recvmmsg fanotify_init
fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns
process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2
seccomp getrandom memfd_create bpf execveat userfaultfd membarrier mlock2 copy_file_range
preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx rseq io_pgetevents
"""

_O32_393 = """
semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl clock_gettime64
clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64
timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64
ppoll_time64 - io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64
semtimedop_time64 rt_sigtimedwait_time64 futex_time64 sched_rr_get_interval_time64
"""

_N64 = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
rt_sigprocmask ioctl pread64 pwrite64 readv writev access pipe _newselect sched_yield mremap
msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer setitimer alarm
getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen
getsockname getpeername socketpair setsockopt getsockopt clone fork execve exit wait4 kill uname
semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate
ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink
chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace
getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid
setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid
getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack
utime mknod personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam
sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup
pivot_root _sysctl prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 swapon
swapoff reboot sethostname setdomainname create_module init_module delete_module get_kernel_syms
query_module quotactl nfsservctl getpmsg putpmsg afs_syscall reserved177 gettid readahead
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
removexattr lremovexattr fremovexattr tkill reserved193 futex sched_setaffinity
sched_getaffinity cacheflush cachectl sysmips io_setup io_destroy io_getevents io_submit
io_cancel exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages
rt_sigreturn set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime
timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres
clock_nanosleep tgkill utimes mbind get_mempolicy set_mempolicy mq_open mq_unlink mq_timedsend
mq_timedreceive mq_notify mq_getsetattr vserver waitid - add_key request_key keyctl
set_thread_area inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat
mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat
faccessat pselect6 ppoll unshare splice sync_file_range tee vmsplice move_pages set_robust_list
get_robust_list kexec_load getcpu epoll_pwait ioprio_set ioprio_get utimensat signalfd timerfd
eventfd fallocate timerfd_create timerfd_gettime timerfd_settime signalfd4 eventfd2
epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open accept4
recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime
syncfs sendmmsg setns process_vm_readv process_vm_writev kcmp finit_module getdents64
sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd
membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx rseq
io_pgetevents
"""

_N32 = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
rt_sigprocmask ioctl pread64 pwrite64 readv writev access pipe _newselect sched_yield mremap
msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer setitimer alarm
getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen
getsockname getpeername socketpair setsockopt getsockopt clone fork execve exit wait4 kill uname
semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate
ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink
chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace
getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid
setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid
getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack
utime mknod personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam
sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup
pivot_root _sysctl prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 swapon
swapoff reboot sethostname setdomainname create_module init_module delete_module get_kernel_syms
query_module quotactl nfsservctl getpmsg putpmsg afs_syscall reserved177 gettid readahead
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
removexattr lremovexattr fremovexattr tkill reserved193 futex sched_setaffinity
sched_getaffinity cacheflush cachectl sysmips io_setup io_destroy io_getevents io_submit
io_cancel exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages
rt_sigreturn fcntl64 set_tid_address restart_syscall semtimedop fadvise64 statfs64 fstatfs64
sendfile64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime
clock_gettime clock_getres clock_nanosleep tgkill utimes mbind get_mempolicy set_mempolicy
mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr vserver waitid - add_key
request_key keyctl set_thread_area inotify_init inotify_add_watch inotify_rm_watch migrate_pages
openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat
readlinkat fchmodat faccessat pselect6 ppoll unshare splice sync_file_range tee vmsplice
move_pages set_robust_list get_robust_list kexec_load getcpu epoll_pwait ioprio_set ioprio_get
utimensat signalfd timerfd eventfd fallocate timerfd_create timerfd_gettime timerfd_settime
signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo
perf_event_open accept4 recvmmsg getdents64 fanotify_init fanotify_mark prlimit64
name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv
process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
memfd_create bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2
pkey_mprotect pkey_alloc pkey_free statx rseq io_pgetevents
"""

_N32_403 = """
clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64
timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64
pselect6_time64 ppoll_time64 - io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64
mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 futex_time64
sched_rr_get_interval_time64
"""


def _numbered(base: int, runs: dict[int, str]) -> dict[int, str]:
    """The table of one ABI: names by number; `runs` has words by the place of the first."""
    return {
        base + first + place: name
        for first, text in runs.items()
        for place, name in enumerate(text.split())
        if name != "-"
    }


#: Name by number, of all three tables.
NAMES: dict[int, str] = {
    **_numbered(4000, {0: _O32, 393: _O32_393, 424: _COMMON}),
    **_numbered(5000, {0: _N64, 424: _COMMON}),
    **_numbered(6000, {0: _N32, 403: _N32_403, 424: _COMMON}),
}


def name_of(number: int) -> str:
    """The name of a system call; "system call N" for a number that no table has."""
    return NAMES.get(number, f"system call {number}")
