"""Ways to send an alert: one file each, all behind `alerts.channels.channel.Channel`."""
