// A back end under test: it warns thermostats that are too hot.
'use strict';

const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');
const { Client } = require('azure-iothub');

// Reads the telemetry of all devices, and sends a message to those that are too hot.
class BackEnd {
  constructor(hub, events, limit) {
    this.service = Client.fromConnectionString(hub);
    this.events = new EventHubConsumerClient('$Default', events);
    this.events.subscribe({
      processEvents: async (batch) => {
        for (const event of batch) {
          const { temperature } = event.body;
          const device = event.systemProperties['iothub-connection-device-id'];
          if (temperature > limit) await this.service.send(device, `${temperature} is too hot`);
        }
      },
      processError: async (err) => console.error(err),
    }, { startPosition: earliestEventPosition });
  }

  async close() {
    await this.events.close();
    await this.service.close();
  }
}

module.exports = { BackEnd };
