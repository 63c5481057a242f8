package wire

// InstanceRoot is the subject below which one instance of a service is addressed.
func InstanceRoot(root, service, instance string) string {
	return root + "." + service + "." + instance
}

// Direct is the subject of an endpoint at one instance.
func Direct(root, service, instance, subject string) string {
	return InstanceRoot(root, service, instance) + ".e." + subject
}
