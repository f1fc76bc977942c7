package sas_test

import (
	"fmt"
	"time"

	"github.com/iotdm/iotdm/sas"
)

// A device signs the password of its MQTT connection.
func ExampleSign() {
	c, err := sas.ParseConnectionString("HostName=contoso.azure-devices.net;DeviceId=dev-1;" +
		"SharedAccessKey=TT5ob9Ntspj4le0WvZE5ZSBQymQ1maN+qaqERaqDXvI=")
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := sas.Sign(c.Audience(), c.SharedAccessKeyName, c.SharedAccessKey, time.Unix(1767225600, 0))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token)
	// Output:
	// SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fdev-1&sig=pO4BCc2TyIeahEuortMJ2i0k3lrfXJseIYRXuP52SMI%3D&se=1767225600
}

// A hub decides about a token it was sent.
func ExampleParseToken() {
	token, err := sas.ParseToken("SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fdev-1" +
		"&sig=pO4BCc2TyIeahEuortMJ2i0k3lrfXJseIYRXuP52SMI%3D&se=1767225600")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("signed:", token.SignedBy("TT5ob9Ntspj4le0WvZE5ZSBQymQ1maN+qaqERaqDXvI="))
	fmt.Println("for dev-1:", token.Covers("contoso.azure-devices.net/devices/dev-1"))
	fmt.Println("for dev-2:", token.Covers("contoso.azure-devices.net/devices/dev-2"))
	fmt.Println("over:", token.Expired(time.Unix(1767225600, 0).Add(time.Hour)))
	// Output:
	// signed: true
	// for dev-1: true
	// for dev-2: false
	// over: true
}

// Printing a connection string shows where it leads and no secret.
func ExampleParseConnectionString() {
	c, err := sas.ParseConnectionString("hostname=h.test;SharedAccessKeyName=service;SharedAccessKey=TT5ob9Ntspj4le0WvZE5ZSBQymQ1maN+qaqERaqDXvI=")
	fmt.Println(c, err)
	_, err = sas.ParseConnectionString("HostName=h.test;DeviceId=d;SharedAccessKey=TT5ob9Ntspj4")
	fmt.Println(err)
	// Output:
	// HostName=h.test;SharedAccessKeyName=service;SharedAccessKey=*** <nil>
	// connection string: SharedAccessKey is not 16 to 64 bytes of base64; was it cut off?
}
