"""The types of IPC process, control side: one folder a type, all with the face of `base.Ipcp`."""
