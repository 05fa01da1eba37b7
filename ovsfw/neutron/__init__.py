"""ovsfw inside OpenStack Neutron; installed with the extra `ovsfw[neutron]`."""
