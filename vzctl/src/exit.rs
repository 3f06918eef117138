//! The exit codes of `vzctl`: the contract scripts match on.

/// What a command ends with. Numbers and meanings are those of vzctl 4 (`include/vzerror.h`); codes that exist only for kernels
/// other than ours keep their place so that nobody reuses the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Success = 0,
    /// Setting a beancounter failed.
    SetBeancounters = 1,
    /// Setting CPU weight or limit failed.
    SetCpu = 2,
    /// A system call or program failed and no closer code fits.
    System = 3,
    /// This kernel lacks what every container needs.
    UnusableKernel = 5,
    /// The host is out of memory or another resource.
    NotEnoughResources = 6,
    /// The container's namespaces could not be made.
    CreateEnvironment = 7,
    /// The command given to `exec` ended with a status other than zero.
    ExecFailed = 8,
    /// Another command holds the container's lock.
    Locked = 9,
    /// `vz.conf` is missing, or a configuration file cannot be parsed.
    NoGlobalConfig = 10,
    /// A script named on the command line, or a helper program, is missing.
    NoScript = 11,
    /// The caller may not do this.
    PermissionDenied = 12,
    /// Setting capabilities failed.
    SetCapability = 13,
    /// The container has no configuration file.
    NoContainerConfig = 14,
    /// `exec` took longer than allowed.
    ExecTimeout = 15,
    /// Checkpointing failed.
    Checkpoint = 16,
    /// Restoring from a checkpoint failed.
    Restore = 17,
    /// The login uid could not be set.
    SetLuid = 18,
    /// The command line is wrong: unknown command, unknown option, options that exclude each other.
    InvalidSyntax = 20,
    /// A parameter has a value it cannot have.
    InvalidValue = 21,
    /// `VE_ROOT` is not set.
    NoVeRoot = 22,
    /// `VE_PRIVATE` is not set.
    NoVePrivate = 23,
    /// `TEMPLATE` is not set.
    NoTemplateDir = 24,
    /// Parameters are missing.
    NotEnoughParameters = 27,
    /// Beancounters that this container needs are missing.
    NotEnoughBeancounters = 28,
    /// No OS template was given and there is no default one.
    NoOsTemplate = 29,
    /// The container is not running.
    NotRunning = 31,
    /// The container is running.
    Running = 32,
    /// The container could not be stopped.
    Stop = 33,
    /// An address could not be added.
    AddAddress = 34,
    /// The configuration failed validation.
    Validation = 35,
    /// The configuration promises more than the host has.
    Overcommit = 36,
    /// The container is not mounted.
    NotMounted = 40,
    /// The container is mounted.
    Mounted = 41,
    /// The private area does not exist.
    NoPrivateArea = 43,
    /// The private area exists already.
    PrivateAreaExists = 44,
    /// The disk is full.
    NoDiskSpace = 46,
    /// The template holds no init or no shell.
    BrokenTemplate = 47,
    /// The private area could not be made.
    CreatePrivateArea = 48,
    /// The mount point could not be made.
    CreateMountPoint = 49,
    /// Mounting failed.
    Mount = 50,
    /// Unmounting failed.
    Umount = 51,
    /// The private area could not be removed.
    DeletePrivateArea = 52,
    /// The layout or mount type is unknown.
    UnknownMountType = 53,
    /// A directory could not be made.
    Mkdir = 54,
    /// Disk quota limits are missing.
    NotEnoughQuotaLimits = 55,
    /// Turning disk quota on failed.
    QuotaOn = 60,
    /// Setting disk quota up failed.
    QuotaInit = 61,
    /// Changing disk quota failed.
    QuotaSet = 62,
    /// `DISKSPACE` is not set.
    NoDiskspace = 63,
    /// `DISKINODES` is not set.
    NoDiskinodes = 64,
    /// Quota of users and groups inside the container could not be set.
    QuotaSetInside = 65,
    /// Turning disk quota off failed.
    QuotaOff = 66,
    /// Quota of users and groups was not set up.
    QuotaNotInitialised = 67,
    /// Disk usage could not be read.
    QuotaUsage = 68,
    /// The host name is bad or could not be set.
    Hostname = 70,
    /// An address is malformed.
    BadAddress = 71,
    /// A DNS server is bad or could not be set.
    Nameserver = 72,
    /// A search domain is bad or could not be set.
    Searchdomain = 73,
    /// A password could not be changed.
    ChangePassword = 74,
    /// `LOCKDIR` is not set or unusable.
    NoLockDir = 77,
    /// An address is in use by another container or on the network.
    AddressInUse = 78,
    /// An action script ended with an error.
    ActionScript = 79,
    /// A sample configuration is missing or could not be copied.
    CopyConfig = 82,
    /// The configuration file holds a bad value.
    InvalidConfig = 85,
    /// Granting a device failed.
    SetDevices = 86,
    /// An application template could not be installed.
    InstallApplication = 87,
    /// An address is not available.
    AddressNotAvailable = 89,
    /// The OS template does not exist.
    NoSuchTemplate = 91,
    /// The image layout is not available.
    NoImageSupport = 99,
    /// The container's addresses could not be read.
    GetAddresses = 100,
    /// Moving a network device into or out of the container failed.
    Netdev = 104,
    /// `DISABLED=yes`: the container may not be started.
    Disabled = 105,
    /// Setting the container's packet filter failed.
    Netfilter = 106,
    /// The distribution's configuration file is missing.
    NoDistConfig = 107,
    /// An action of the distribution is missing.
    NoDistAction = 108,
    /// Applying a sample configuration failed.
    ApplyConfig = 109,
    /// Reinstalling failed.
    Reinstall = 128,
    /// The container's view of memory could not be set.
    SetMeminfo = 129,
    /// A virtual Ethernet device could not be set up.
    Veth = 130,
    /// The name is taken or could not be set.
    SetName = 131,
    /// The container started, but its init did not report that it is up.
    StartWait = 133,
    /// The configuration could not be saved.
    SaveConfig = 139,
    /// The kernel release shown inside could not be set.
    SetOsRelease = 144,
    /// Setting I/O priority or limits failed.
    SetIo = 148,
    /// The image does not exist.
    NoImage = 150,
    /// Making an image failed.
    CreateImage = 151,
    /// Mounting an image failed.
    MountImage = 152,
    /// Unmounting an image failed.
    UmountImage = 153,
    /// Resizing failed.
    Resize = 154,
    /// Converting between layouts failed.
    Convert = 155,
    /// Making a snapshot failed.
    SnapshotCreate = 156,
    /// Merging a snapshot failed.
    SnapshotMerge = 157,
    /// Deleting a snapshot failed.
    SnapshotDelete = 158,
    /// Switching to a snapshot failed.
    SnapshotSwitch = 159,
    /// Mounting a snapshot failed.
    SnapshotMount = 160,
    /// Unmounting a snapshot failed.
    SnapshotUmount = 161,
    /// Compacting an image failed.
    Compact = 166,
    /// Listing snapshots failed.
    SnapshotList = 167,
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> u8 {
        exit as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(u8::from(exit))
    }
}
