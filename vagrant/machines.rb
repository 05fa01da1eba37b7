# What the machines of both Vagrantfiles have in common: the box, the folder, and the providers.

ARM = RbConfig::CONFIG["host_cpu"] =~ /arm|aarch64/
# Boxes are pinned: a name and a version.  OVSFW_BOX names another one, OVSFW_BOX_VERSION its version.
BOX, BOX_VERSION = ARM ? ["bento/ubuntu-24.04", "202502.21.0"] : ["debian/bookworm64", "12.20250126.1"]
MEMORY = Integer(ENV.fetch("OVSFW_MEMORY", "1024"))
CPUS = Integer(ENV.fetch("OVSFW_CPUS", "2")) # with one, ovs-vswitchd 3.1 loses upcalls when ports come and go
PATIENCE = ENV.fetch("OVSFW_PATIENCE", "120") # seconds until provision gives up waiting

def common(config)
  config.vm.box = ENV.fetch("OVSFW_BOX", BOX)
  version = ENV.fetch("OVSFW_BOX_VERSION", ENV.key?("OVSFW_BOX") ? nil : BOX_VERSION)
  config.vm.box_version = version if version
  config.vm.box_check_update = false
  config.vm.boot_timeout = Integer(ENV.fetch("OVSFW_BOOT_TIMEOUT", "300"))
  config.vm.synced_folder ".", "/vagrant", disabled: true
  # rsync, and said so: the Debian box has no guest additions, and libvirt would take NFS, which asks for sudo.
  config.vm.synced_folder File.expand_path("..", __dir__), "/ovsfw", type: "rsync",
    rsync__exclude: [".git/", ".build/", ".vagrant/"]
  providers(config)
end

def providers(config)
  config.vm.provider "libvirt" do |libvirt|
    libvirt.driver = ENV.fetch("OVSFW_LIBVIRT_DRIVER", "kvm")
    libvirt.memory = MEMORY
    libvirt.cpus = CPUS
    libvirt.graphics_type = "none"
    if libvirt.driver == "qemu" # emulated: slow, but needs no virtualisation
      libvirt.cpu_mode = "custom"
      libvirt.cpu_model = "qemu64"
    end
  end
  config.vm.provider "virtualbox" do |virtualbox|
    virtualbox.memory = MEMORY
    virtualbox.cpus = CPUS
    virtualbox.linked_clone = true
  end
  # Apple silicon.  VirtualBox from 7.1 on runs there, too.
  config.vm.provider "parallels" do |parallels|
    parallels.memory = MEMORY
    parallels.cpus = CPUS
    parallels.linked_clone = true
  end
end
