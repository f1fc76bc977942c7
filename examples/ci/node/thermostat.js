// A thermostat: the device program under test.
'use strict';

const { EventEmitter } = require('node:events');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

// Keeps a target, which a direct method or a desired property sets, and emits warnings.
class Thermostat extends EventEmitter {
  async open(connectionString) {
    this.client = Client.fromConnectionString(connectionString, Mqtt);
    await this.client.open();
    this.twin = await this.client.getTwin();
    this.twin.on('properties.desired.target', (target) => this.setTarget(target));
    this.client.onDeviceMethod('setTarget', async (request, response) => {
      await this.setTarget(request.payload.target);
      await response.send(200, {});
    });
    this.client.on('message', async (message) => {
      await this.client.complete(message);
      this.emit('warning', message.data.toString());
    });
    // Once this has been answered, what is subscribed to above is in place too.
    await this.setTarget(this.twin.properties.desired.target);
  }

  setTarget(target) {
    return new Promise((resolve, reject) => {
      this.twin.properties.reported.update({ target }, (err) => (err ? reject(err) : resolve()));
    });
  }

  async measure(temperature) {
    const message = new Message(JSON.stringify({ temperature }));
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';
    await this.client.sendEvent(message);
  }

  close() {
    return this.client.close();
  }
}

module.exports = { Thermostat };
